"""Data sets, batches and their order: all are functions of seed, epoch and batch."""
