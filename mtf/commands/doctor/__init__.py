"""`mtf doctor`: a theme is a module of small checks, each a function that yields what it found."""
