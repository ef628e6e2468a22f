# make        set up, then build, measure and lay out the embedded checkpoint
# make test   set up, then run ruff, mypy and the tests of the engine, the kits and the steps: minutes
# make test-speech   set up, then run the rest: whole recipes on speech, consumers, other processors, disturbed builds
# make lint   ruff and mypy
# make docs   set up, then build the documentation in site/
# make test-faults   set up, then an hour or more of kills, flipped bits, disk errors and crowds: docs/faults.md

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: all test test-speech test-faults docs lint
all: .venv/ready
	$(BIN)/doit -n 2

# Files in their order: by default those with few tests come last, and the longest are among them.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) -m "not slow"

test-speech: .venv/ready
	$(PYTEST) -m slow

test-faults: .venv/ready
	FAULTS=long $(PYTEST) tests/faults/test_crowd.py tests/faults

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks embedded docs dodo.py
	$(BIN)/mypy

# Every version is fixed in src/artifacts/constraints.txt. torch is named beside what depends on it, so that no other one is taken.
.venv/ready: pyproject.toml src/artifacts/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "error: $(PYTHON) is not Python 3.11"; echo "  fix: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv (some 2.5 GB, a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint src/artifacts/constraints.txt \
	    torch==2.13.0 --editable '.[onnx,nemo,ncnn,consumers,docs,dev]'
	@$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true  # pip compiles on one core; some files are templates
	@touch $@
