"""A job of a run: claim, proof of the code, training, end."""
