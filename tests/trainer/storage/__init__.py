"""Tests of mtf/trainer/storage."""
