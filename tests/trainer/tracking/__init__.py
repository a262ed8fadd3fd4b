"""Tests of mtf/trainer/tracking."""
