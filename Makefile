# covsim: `make run` shows what it does, `make test` proves that it works.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test test-all check benchmark studies papers schema clean

run: $(INSTALLED)
	$(BIN)/covsim run scenarios/covenant72b.yaml

# Two processes of one torch thread each: for small models that beats one of two. Tests of the emulation shape real
# links where root, ip, tc and ss are there (Debian: apt install iproute2), and in user space anywhere else.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 --ignore=tests/benchmarks

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --ignore=tests/benchmarks

check: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(INSTALLED)
	$(BIN)/pytest tests/benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds -p no:xdist

studies: $(INSTALLED)
	$(BIN)/python -m covsim.sweep.studies contrast flagship

papers: $(INSTALLED)
	$(BIN)/covsim papers all

schema: $(INSTALLED)
	$(BIN)/covsim schema > scenarios/schema.json

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,emulation]"
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
