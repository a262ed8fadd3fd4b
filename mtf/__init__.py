"""mtf: a git repository as the control plane for machine-learning experiments on SLURM."""
