"""`mtf sync --watch` and `mtf controller`: one controller per cluster, kept running."""
