"""Shows a training: mirrors to W&B, TensorBoard and CSV, throughput, and a progress bar."""
