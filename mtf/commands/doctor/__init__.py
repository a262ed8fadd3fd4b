"""The checks of `mtf doctor`: one module per theme, one function per check."""
