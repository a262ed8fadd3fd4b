"""Specs with a Hydra ``defaults`` list, composed from the groups of the same commit."""
