"""The only door to git: its processes, its wire formats, and a repository's objects and refs."""
