"""Benchmarks: ratios of times measured side by side in one run (`make bench`), without limits."""
