# Everything runs inside .venv; `make demo` and `make test` set it up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help setup demo test test-all test-gpu lint format docs results wheel audit lock clean

help:
	@echo "make demo      set up, train recipes/quickstart.yaml on the images inside the package, test it, write one page"
	@echo "make test      set up and run the tests (5 to 10 minutes on 2 cores)"
	@echo "make test-all  the slow tests too"
	@echo "make test-gpu  the tests that run on a GPU as well; on the CPU where there is none"
	@echo "make lint      ruff and mypy"
	@echo "make docs      build the documentation site in build/site (installs its tools first)"
	@echo "make results   write every table of docs/ again, from results/ (no training, no network)"
	@echo "make audit     known weaknesses of the tested packages, by pip-audit (installs it first)"
	@echo "make lock      requirements.lock anew, from constraints.txt"
	@echo "make wheel     build and check dist/*.tar.gz and dist/*.whl (installs its tools first)"
	@echo "make format    let ruff rewrite the sources"
	@echo "make clean     remove .venv and build products"

setup: $(STAMP)

# The constraints pin the whole tested set. Several of those releases need Python 3.11, so on 3.10 pip chooses within setup.cfg's bounds.
CONSTRAINTS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lebm needs Python 3.10 or newer; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[all,dev]'
	touch $@

# One thread, as for the tests: two that share their cores with anything else wait for each other most of the time.
demo: export OMP_NUM_THREADS = 1
demo: DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: $(STAMP)
	$(BIN)/lebm fit -c quickstart --run_dir $(DEMO)
	$(BIN)/lebm test $(DEMO)
	$(BIN)/lebm sample $(DEMO) -n 100
	$(BIN)/lebm report $(DEMO) --out $(DEMO)/report.html
	@echo "Open file://$(CURDIR)/$(DEMO)/report.html in a browser."
	@echo "Next: lebm ls; lebm cp quickstart mine.yaml; lebm fit -c mine.yaml"

# One thread a worker: two workers on two cores beat one worker with two threads, and never fight over them.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile -m "not slow" tests

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile tests

# In one process: the tests would share the GPU.
test-gpu: $(STAMP)
	@where=$$($(BIN)/python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")'); \
	if [ $$where = cpu ]; then echo "no GPU here: the tests run on the CPU"; fi; \
	OMP_NUM_THREADS=1 $(PYTEST) -m "gpu and not slow" -k $$where tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lebm

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tools of `make docs`, `make wheel` and `make audit` are extras of the package.
$(VENV)/.%-installed: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[$*]'
	touch $@

results: $(STAMP)
	$(BIN)/python scripts/make_results.py

# Once its tools are installed, the build needs no network; every warning of it is an error (with --quiet no warning would be seen).
docs: $(VENV)/.docs-installed
	$(BIN)/python scripts/make_results.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

wheel: $(VENV)/.release-installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

# --strict: an index that cannot answer for a package is a failure, and not a pass.
audit: $(VENV)/.audit-installed
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

lock: $(VENV)/.audit-installed
	@echo '# constraints.txt with the hashes of all files; `make lock` writes it. For installation:' > requirements.lock
	@echo '#   pip install --require-hashes -r requirements.lock; pip install --no-deps .' >> requirements.lock
	$(BIN)/uv --quiet pip compile constraints.txt --no-deps --generate-hashes --no-header --no-annotate \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 >> requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
