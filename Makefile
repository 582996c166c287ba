# `make demo`: the main job from nothing. `make test`: what CI runs. `make test-all`: slow tests too.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := "$(BIN)/python" -m pip --disable-pip-version-check --quiet

# Folders may have blanks in their names: quoted in recipes, and escaped where make reads names.
blank  := $(subst ,, )
AT     := $(subst $(blank),\$(blank),$(VENV))
MADE   := pyproject.toml $(wildcard locks/3.*.txt) | $(AT)/bin/python

# Exact versions of everything, the build backend included, on every day: locks/3.x.txt.
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
install = lock=locks/$$("$(BIN)/python" $(VERSION)).txt; \
	PIP_CONSTRAINT=$$lock PIP_BUILD_CONSTRAINT=$$lock $(PIP) install -e ".$(EXTRAS)"

.PHONY: demo test test-all lint types docs locks release-check hostile gpu-pack clean
.DELETE_ON_ERROR:

$(AT)/bin/python:
	@test -f locks/$$("$(PYTHON)" $(VERSION)).txt \
	|| { echo "make PYTHON=python3.x, with one of:" locks/3.*.txt >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"

$(AT)/.demo: EXTRAS :=
$(AT)/.demo: $(MADE)
	$(install)
	@touch "$@"

$(AT)/.dev: EXTRAS := [dev]
$(AT)/.dev: $(MADE)
	$(install)
	@touch "$@" "$(VENV)/.demo"

demo: $(AT)/.demo
	"$(BIN)/python" -m gabactl report -o report.html

test: $(AT)/.dev
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -q

$(AT)/.all: EXTRAS := [dev,cluster,integrations,fuzz]
$(AT)/.all: $(MADE)
	$(install)
	@touch "$@" "$(VENV)/.dev" "$(VENV)/.demo"

test-all: $(AT)/.all
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -q -m "slow or not slow"

lint: $(AT)/.dev
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .

types: $(AT)/.dev
	"$(BIN)/python" -m mypy

$(AT)/.docs: EXTRAS := [docs]
$(AT)/.docs: $(MADE)
	$(install)
	@touch "$@"

docs: $(AT)/.docs
	"$(BIN)/python" -m sphinx -W --keep-going -q -b html docs docs/_build/html
	"$(BIN)/python" docs/_check_links.py docs/_build/html

locks:
	"$(BIN)/python" .ci/lock

release-check:
	"$(PYTHON)" .ci/release-check

hostile: $(AT)/.all
	"$(BIN)/python" simulations/hostile_inputs.py

# What a GPU machine lacks, into .gpu/: make gpu-pack LIMIT=64 [WHEELS="control==0.10.2"], in MiB.
gpu-pack:
	$(if $(LIMIT),,$(error make gpu-pack LIMIT=64, or how many MiB may travel))
	"$(PYTHON)" benchmarks/gpu_pack.py --limit "$(LIMIT)" --wheels $(WHEELS)

clean:
	rm -rf "$(VENV)" build dist report.html docs/_build docs/auto_examples docs/auto_theory docs/generated
