"""`mtf sync --watch` and `mtf controller`: one controller a cluster, kept running."""
