"""Tests of mtf/framework."""
