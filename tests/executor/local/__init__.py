"""Tests of mtf/executor/local."""
