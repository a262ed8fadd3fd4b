"""Reads YAML 1.2: bytes to JSON values, and the line and column of each of them."""
