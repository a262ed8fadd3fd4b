"""Tests of mtf/spec/schema."""
