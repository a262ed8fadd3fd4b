"""The resources that attempts of runs have used, and advice from them. Pure."""
