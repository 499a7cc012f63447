# Every target is one line of work; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check fix bench soak docs pin audit clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): constraints.txt constraints-peers.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target .venv/peers -r constraints-peers.txt
	@touch $(STAMP)

setup: $(STAMP)  ## Make .venv with everything in it

demo: $(STAMP)  ## Sync real files into an embedded DuckDB and ask it a question
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r constraints-demo.txt
	@$(BIN)/python examples/demo/demo.py

test: $(STAMP)  ## Run every test that can run here, real servers included
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

quick: $(STAMP)  ## Run the tests that need no server, in under a minute
	$(BIN)/python -m pytest -q -n auto -m "not postgresql and not unhurried"

check: $(STAMP)  ## Formatting, lint, types, and whether the reference pages are fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m catchment docs --check

fix: $(STAMP)  ## Format, and mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Measure against baselines; BENCH_ARGS="--only parquet-duckdb --runs 5"
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

soak: $(STAMP)  ## Long fault runs, an hour or so; PYTEST_ARGS="-k postgresql" chooses
	$(BIN)/python -m pytest -m soak --soak -rP $(PYTEST_ARGS)

docs: $(STAMP)  ## Write the reference pages anew, and build the site into build/site
	$(BIN)/python -m catchment docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "read it with: $(BIN)/python -m http.server --directory build/site"

pin: $(STAMP)  ## Choose versions anew and write constraints.txt
	$(BIN)/python tools/pin.py

audit: $(STAMP)  ## Ask for advisories about the pinned dependencies; says loudly if nobody answers
	$(BIN)/python tools/audit.py $(AUDIT_ARGS)

clean:  ## Remove what the targets made
	rm -rf .venv .demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/data benchmarks/results
