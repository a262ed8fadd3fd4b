"""Used by every part of a job: lines in its log, and signals."""
