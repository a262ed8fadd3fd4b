"""The training side of ``mtf verify-resume``: compares interrupted trainings bit by bit."""
