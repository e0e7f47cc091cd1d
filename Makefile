# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# Each sets up what it needs in .venv, from the tested versions in constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart small-recipes test lint types unit clean

quickstart: $(VENV)/.quickstart
	$(BIN)/st-l0 quickstart $(ARGS)

# Every recipe of training_recipes/small; ARGS are overrides such as training.max_steps=10.
small-recipes: $(VENV)/.quickstart
	$(BIN)/st-l0 small-data
	for recipe in training_recipes/small/*.yaml; do echo "$$recipe" && $(BIN)/st-l0 train "$$recipe" $(ARGS) || exit; done

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change of the sources needs no new installation.
$(VENV)/.quickstart: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[eval,quickstart]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev,eval,quickstart,report]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
