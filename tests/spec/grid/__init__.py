"""Tests of mtf/spec/grid."""
