"""`mtf checkpoint`."""
