"""Tests of mtf/reconcile."""
