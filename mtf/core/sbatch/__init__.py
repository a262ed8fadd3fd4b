"""The options that SLURM's `sbatch` reads in a job script, and their upper bounds. Pure."""
