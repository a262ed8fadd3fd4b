"""Tests of what every part of a job uses."""
