"""`mtf hooks`: installing the git hooks, and the checks that they run."""
