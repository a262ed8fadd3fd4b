"""A training outside of a job: its configuration, its run folder, and how it is stopped."""
