"""Tests of mtf/commands/controller."""
