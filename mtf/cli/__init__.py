"""The command line: parses options, calls one command, prints, and sets the exit code."""
