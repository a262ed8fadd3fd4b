"""What a command shows on the terminal, and the signals that end it."""
