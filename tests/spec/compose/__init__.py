"""Tests of mtf/spec/compose."""
