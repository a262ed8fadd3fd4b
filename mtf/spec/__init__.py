"""From the bytes of committed YAML files to validated, named experiments; pure, no file, no git."""
