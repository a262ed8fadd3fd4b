# `make demo` and `make test` work on a fresh machine: both set up .venv first.
PYTHON ?= python3
EXECUTOR ?= local
BIN := .venv/bin
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYTHONDONTWRITEBYTECODE =  # whoever has set it: compiling mtf again takes longer than most commands

.PHONY: help setup demo test lint docs mutants bench clean
help:
	@echo "make setup             only set up .venv, which every target needs"
	@echo "make demo              commit a grid, sync, train, read the results"
	@echo "make demo EXECUTOR=slurm   the same on the cluster whose sbatch answers here"
	@echo "make test              all tests, those on a private SLURM included"
	@echo "make lint              ruff, mypy, import layers, dead code, commit messages, the CI files"
	@echo "make docs              the documentation, into docs/_build/html"
	@echo "make mutants           small faults put into the code: do tests notice? (30 minutes)"
	@echo "make bench             the figures of benchmarks/"

setup: $(READY)

# The constraints pin every version; pyproject.toml holds the ranges that mtf works with.
$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mtf needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	@echo "setting up .venv with pinned versions (torch for CPUs): this takes a few minutes"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[train,hydra,test,docs]'
	@$(BIN)/python -c 'import importlib.metadata as m; v = m.version("torch"); assert v.split("+")[0] == "2.13.0", f"torch {v} instead of the pinned one"'
	@touch $(READY)

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" EXECUTOR=$(EXECUTOR) bash docs/demo.sh

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile  # two cores are enough: those on SLURM mostly wait

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python .ci/commit_messages.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci templates/ci/*.yml

docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

mutants: $(READY)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[mutants]'
	$(BIN)/python -m tests.mutants --sample 100 --seed 1 --minutes 30

clean:
	rm -rf .venv docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
