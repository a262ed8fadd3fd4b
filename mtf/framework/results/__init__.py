"""What runs have reached, as typed values: tables, curves, weights."""
