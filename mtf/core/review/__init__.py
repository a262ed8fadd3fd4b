"""What a proposed change would do to the runs, and how two runs differ. Pure."""
