"""Tests of mtf/trainer/compute."""
