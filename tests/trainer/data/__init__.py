"""Tests of mtf/trainer/data."""
