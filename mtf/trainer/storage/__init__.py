"""Files of a run that a job writes: checkpoints, journal, scalars."""
