"""Tests of mtf.core.usage."""
