"""Checkpoints as content: what is saved when, how a run resumes or starts from another."""
