"""Entry point of `python -m mtf.cli`: the same as `mtf`, for hooks that name their interpreter."""

from mtf.cli.main import main

main()
