"""Tests of mtf/trainer/resume."""
