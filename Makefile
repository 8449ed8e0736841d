# `make quickstart` runs the whole road with the embedded teacher; `make test` runs the fast tests. Both install first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# OpenMP threads spin for a moment and then sleep: distill/io/numeric.py says why.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT  ?= 10000

.PHONY: quickstart install test heavy check format lint types contracts docs bench clean

quickstart: install
	$(BIN)/distill quickstart

install: $(VENV)/.installed

# torch goes first, so that whatever else asks for it finds the pinned build installed.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,serve,dev]'
	touch $@

test: install
	$(BIN)/pytest

heavy: install
	$(BIN)/pytest -m heavy

check: lint types contracts test

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/pyright

contracts: install
	$(BIN)/lint-imports

docs: install
	$(BIN)/python -m distill.recipe.schema
	$(BIN)/python -m distill.planning.reference
	$(BIN)/python -m distill.cli.reference

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
