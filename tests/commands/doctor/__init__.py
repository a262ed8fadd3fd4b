"""Tests of mtf/commands/doctor."""
