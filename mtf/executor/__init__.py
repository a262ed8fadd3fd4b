"""What executes jobs: SLURM, or the embedded local queue, behind one protocol."""
