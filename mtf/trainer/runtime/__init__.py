"""What every part of a job uses: lines for people on stderr, and signals."""
