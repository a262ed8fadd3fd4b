"""Decisions about runs: what to do next, and why. Pure."""
