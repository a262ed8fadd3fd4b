"""Tests of the sources that specs name."""
