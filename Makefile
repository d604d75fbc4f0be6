# Needs Python 3.11 or later with venv and pip, and nothing else. PYTHON chooses which.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3.14 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo       simulate a galaxy and run the whole job on it (products and figures in ./demo)"
	@echo "make test       run the test suite"
	@echo "make test-slow  run the tests that the suite leaves out (some four minutes)"
	@echo "make lint       check style and types"
	@echo "make bench      run the benchmarks at full size (a quiet machine, some minutes)"
	@echo "make clean      remove the environment, the demo and caches"

# Two stamps, so that the demo installs no test tools; pip does the work again when pyproject changes.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/installed

demo: $(VENV)/installed
	$(BIN)/specphoto demo --output demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find specphoto tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
