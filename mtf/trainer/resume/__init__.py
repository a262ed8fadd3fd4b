"""Checkpoints of a training: take, save, load, start from another run's."""
