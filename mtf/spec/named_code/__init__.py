"""Checks the names and keys of specs against the code that they name, without importing any."""
