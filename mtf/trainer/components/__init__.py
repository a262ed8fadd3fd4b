"""Models, optimizers, schedulers and their registry: what a configuration names, built."""
