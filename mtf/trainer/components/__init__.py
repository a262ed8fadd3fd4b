"""Builds the data, model, optimizer and learning-rate schedule that a configuration names."""
