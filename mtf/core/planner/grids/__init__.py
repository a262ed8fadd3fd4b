"""Rules for all runs of a grid: how many run at a time, and who waits for whom."""
