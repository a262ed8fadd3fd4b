"""A grid expanded into its named members."""
