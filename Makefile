# Everything runs inside .venv; `make demo` and `make test` set it up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q

DOCS_STAMP := $(VENV)/.docs-installed
RELEASE_STAMP := $(VENV)/.release-installed

.PHONY: help setup demo test test-all lint format docs wheel clean

help:
	@echo "make demo      set up, train recipes/quickstart.yaml on the images inside the package, evaluate, write pictures"
	@echo "make test      set up and run the tests (about 8 minutes on 2 cores)"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff and mypy"
	@echo "make docs      build the documentation site in build/site (installs its tools first)"
	@echo "make wheel     build and check dist/*.tar.gz and dist/*.whl (installs its tools first)"
	@echo "make format    let ruff rewrite the sources"
	@echo "make clean     remove .venv and build products"

setup: $(STAMP)

# The constraints pin the whole tested set. Several of those releases need Python 3.11, so on 3.10 pip chooses within setup.cfg's bounds.
CONSTRAINTS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lebm needs Python 3.10 or newer; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	touch $@

# One thread, as for the tests: two that share their cores with anything else wait for each other most of the time.
demo: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python scripts/demo.py

# One thread a worker: two workers on two cores beat one worker with two threads, and never fight over them.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile -m "not slow" tests

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lebm

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Once its tools are installed, the build needs no network; every warning of it is an error (with --quiet no warning would be seen).
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[docs]'
	touch $@

docs: $(DOCS_STAMP)
	$(BIN)/python scripts/gallery.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(RELEASE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[release]'
	touch $@

wheel: $(RELEASE_STAMP)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf $(VENV) build dist *.egg-info
