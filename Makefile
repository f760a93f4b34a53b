# make install   this project with all extras, in .venv, from the lock; quick when nothing has changed
# make demo      the main job, a small sweep, on the synthetic data set, in minutes
# make test      all checks and all tests but the slow ones, which SLOW=1 make test runs as well
# make check     the checks alone: format, lint, types, layers, names, the core without its neighbours
# make bench     benchmarks/: JSON and a table
# make docs      write docs/configuration.md and docs/schemas/ anew
# make site      the pages and a reference of the code, to be read in a browser; strict
# make lock      pin the newest versions that pyproject.toml allows
# make format    write the code in the house's format

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check lint types layers core bench docs site lock format clean

BIN := .venv/bin
CORE := .venv-core

help:
	@sed -n 's/^# make/make/p' Makefile

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml scripts/bootstrap.sh scripts/sync.sh
	@echo "installing into .venv (once; some 6 GB) ..." >&2
	@scripts/bootstrap.sh .venv
	@scripts/sync.sh .venv
	@touch $@

demo: install
	@$(BIN)/nfbmr sweep --config demo --space demo --trials 8

# Slow tests kill nodes and servers and wait for what follows: they want an idle machine.
test: check
	@$(BIN)/pytest --numprocesses 2 --dist loadfile $(if $(SLOW),,-m "not slow")

check: lint types layers core

lint: install
	@$(BIN)/ruff format --quiet --check . || { echo "  -> make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

types: install
	@$(BIN)/mypy

layers: install
	@$(BIN)/lint-imports
	@$(BIN)/python -m scripts.import_cycles
	@$(BIN)/python -m scripts.private_names
	@$(BIN)/python -m scripts.documented_constants
	@$(BIN)/python -m scripts.single_use_helpers > /dev/null

core: $(CORE)/.installed
	@$(CORE)/bin/python scripts/core_alone.py

$(CORE)/.installed: .venv/.installed
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CORE)
	@scripts/sync.sh $(CORE) pyproject.toml
	@touch $@

bench: install
	@$(BIN)/python -m benchmarks

docs: install
	@$(BIN)/nfbmr config --describe > docs/configuration.md
	@$(BIN)/python -m scripts.schemas

site: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; with a search field: $(BIN)/python -m http.server --directory build/site"

lock: install
	@$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --extra all --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url --output-file requirements.lock > /dev/null
	@! grep -nE '://|^-' requirements.lock

format: install
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	@rm -rf .venv .venv-uv $(CORE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
