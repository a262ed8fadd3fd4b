"""Tests of mtf/spec/yaml."""
