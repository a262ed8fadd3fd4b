"""Specs: from the bytes of committed YAML files to validated, named experiments. No I/O."""
