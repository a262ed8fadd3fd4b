"""The language of `--where`: text to a condition on runs. Pure."""
