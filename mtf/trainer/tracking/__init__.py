"""What people watch: scalars mirrored to W&B, TensorBoard and CSV, progress and throughput."""
