"""Mutation testing: change the code a little, and see whether the nearest tests notice.

`make mutants` takes a sample of small faults, one at a time, and runs the tests nearest to each. A
fault that neither they nor mypy notice has survived: a property is untested, or the fault changes
nothing. Each survivor that is known stands with its reason in ``survivors.toml``.

The operators are mutmut's, and some of our own (``operators``). The driver is our own, because
mutmut 3 runs all mutants of a module from one rewritten copy (which breaks pinned code, frozen
classes and forked jobs), maps tests by one run of the whole suite, and takes no samples; and
cosmic-ray has one test command for all modules, and changes annotations too.
"""
