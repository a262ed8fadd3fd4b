"""Tests of mtf/project."""
