"""Tests of mtf/core/vocabulary."""
