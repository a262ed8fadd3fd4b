"""The SLURM executor: running SLURM's programs and parsing their output."""
