"""The files of code that specs name, at a commit, in the index or on disk."""
