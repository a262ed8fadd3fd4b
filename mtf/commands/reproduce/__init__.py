"""Reproduces a run: `again` runs it once more from its pin, `evidence` reads what is compared."""
