"""Files of a run: checkpoints, journal and scalars, written so that a kill loses nothing."""
