"""The choice of runs: the conditions of `--where`, and the rules of commands that act on runs."""
