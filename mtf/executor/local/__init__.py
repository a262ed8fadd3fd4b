"""The embedded executor: a queue in the run root, its worker, and the processes of jobs."""
