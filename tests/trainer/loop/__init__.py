"""Tests of mtf/trainer/loop."""
