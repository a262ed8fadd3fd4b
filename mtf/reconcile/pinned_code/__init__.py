"""The whole code of a commit: its files, those of its submodules, and the contents of Git LFS."""
