# Two commands on a fresh machine: `make demo` sets up and runs the main job, `make test` sets up and passes the tests.
# `make dist-check` builds wheel and sdist and tries them in a clean environment.
# `make bench` runs every benchmark (hours; see benchmarks/README.md); BENCH="overhead geometry" some of them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo test bench docs dist-check setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q "$(TORCH)"
	$(BIN)/pip install -q -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/upright demo --output demo-out

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

bench: setup
	$(BIN)/python -m benchmarks.bench $(BENCH) $(if $(PEER),--peer $(PEER))

docs: setup
	$(BIN)/pip install -q -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# build wheel and sdist, install the wheel into an environment of its own, and try it there
dist-check: setup
	rm -rf dist
	$(BIN)/pip install -q build
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(BIN)/python -m venv dist/venv
	dist/venv/bin/pip install -q --no-compile "$(TORCH)" "$$(ls $(CURDIR)/dist/*.whl)[demo]"
	$(BIN)/python tests/distribution.py dist dist/venv

clean:
	rm -rf $(VENV) demo-out site build dist .pytest_cache .mypy_cache .ruff_cache
