"""YAML 1.2 bytes to plain values, and the line and column of each of them."""
