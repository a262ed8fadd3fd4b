"""Tests of mtf/core/planner."""
