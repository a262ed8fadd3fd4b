"""Where a project is: its folder in the repository, and the remote that its clones share."""
