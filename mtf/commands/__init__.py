"""The commands, one module each: gather facts, decide (in mtf.core), act, record."""
