"""Printing to the terminal, the live display of runs, and signals that stop a command."""
