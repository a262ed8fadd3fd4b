"""One file a verb: gather, decide (in mtf.core), act, record."""
