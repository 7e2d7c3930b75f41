# `make demo` and `make test` set up everything they need from a fresh clone. `make check` is what CI runs.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types contracts wheel check format clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "invdiff needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

setup: $(STAMP) ## create .venv and install invdiff for development

demo: $(STAMP) ## reconstruct a simulated brain scan, write a Zarr result and a picture
	$(BIN)/invdiff demo --overwrite

test: $(STAMP) ## the test suite, all but the tests that need a GPU
	$(BIN)/python -m pytest -m "not gpu" -n $(WORKERS) $(PYTEST_ARGS)

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

contracts: $(STAMP) ## import-linter: who may import whom
	$(BIN)/lint-imports

wheel: $(STAMP) ## build sdist and wheel, smoke-test the wheel outside the tree
	rm -rf dist build
	$(BIN)/python -m build --outdir dist . > /dev/null
	site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$$site" dist/*.whl && \
	cd "$$site" && \
	PYTHONPATH="$$site" $(CURDIR)/$(BIN)/python -P $(CURDIR)/tests/wheel_smoke.py "$$site" $(CURDIR)

check: test lint types contracts wheel ## everything CI runs

clean: ## remove what the tools left behind, .venv included
	rm -rf $(VENV) build dist invdiff-demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
