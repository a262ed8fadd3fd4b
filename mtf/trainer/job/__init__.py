"""A run's job: it claims the run folder, proves the code, trains, and says how it ended."""
