"""The checks of `mtf doctor`: a module for each theme, a function that yields findings a check."""
