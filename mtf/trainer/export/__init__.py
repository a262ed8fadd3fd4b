"""Weights of a run for other programs: in files, and in models."""
