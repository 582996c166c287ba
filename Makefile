# `make demo`: the main job from nothing. `make test`: what CI runs. `make test-all`: slow tests too.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-all lint types docs release-check hostile clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/gabactl report -o report.html

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[dev,cluster,integrations,fuzz]"
	@touch $@ $(VENV)/.dev $(VENV)/.demo

test-all: $(VENV)/.all
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/_check_links.py docs/_build/html

release-check:
	$(PYTHON) .ci/release-check

hostile: $(VENV)/.all
	$(BIN)/python simulations/hostile_inputs.py

clean:
	rm -rf $(VENV) build dist report.html docs/_build docs/auto_examples docs/auto_theory docs/generated
