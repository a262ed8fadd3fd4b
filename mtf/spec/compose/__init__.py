"""Composing specs with a Hydra ``defaults`` list from the config groups of the same commit."""
