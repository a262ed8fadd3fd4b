"""The only access to git: its processes, its wire formats, and a repository's objects and refs."""
