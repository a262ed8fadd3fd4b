"""Tests of mtf/spec/lint."""
