"""Rows as of now: the executors are asked once, for all viewers of a clone."""
