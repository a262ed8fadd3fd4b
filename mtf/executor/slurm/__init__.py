"""SLURM as an executor: its programs, what they print, and the jobs handed to them."""
