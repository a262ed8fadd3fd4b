"""Tests of mtf/trainer/job."""
