"""Vocabulary and decisions, standard library only: no clock, no file, no process."""
