"""Rows: runs as people see them now."""
