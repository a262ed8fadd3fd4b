"""`mtf hooks` and the git hooks that it installs."""
