"""Tests of mtf/executor/slurm."""
