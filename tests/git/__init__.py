"""Tests of mtf/git."""
