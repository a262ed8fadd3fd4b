"""Data sets, batches and their order, as functions of seed, epoch and batch."""
