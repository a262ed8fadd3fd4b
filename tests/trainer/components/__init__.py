"""Tests of mtf/trainer/components."""
