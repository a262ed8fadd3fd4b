"""Proves on a user's own model and data that an interrupted training equals a whole one."""
