"""What specs and ``mtf.yaml`` may say: every key with its type, default and checks."""
