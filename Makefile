# Everything a developer types; `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

.PHONY: help install demo lint test test-full bench gpu-check reference clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv and install eravane with its CPU libraries into it

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints-cpu.txt --editable '.[cpu,dev]'
	touch $@

demo: install  ## make a dataset, run the whole batch on it, show the result
	$(BIN)/eravane demo

lint: install  ## format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, then every test but the long proofs
	$(PYTEST) -m 'not full'

test-full: lint  ## lint, then every test
	$(PYTEST)

bench: install  ## run every benchmark
	$(BIN)/python -m benchmarks all

MODE ?= --quick
gpu-check:  ## prove it on a GPU: checks and measurements, resumable; PYTHON=... MODE=--full to choose; needs no install
	PYTHONPATH=engine:kernels:.$${PYTHONPATH:+:$$PYTHONPATH} $(if $(wildcard $(VENV)/.installed),$(if $(filter python3,$(PYTHON)),$(BIN)/python,$(PYTHON)),$(PYTHON)) -m benchmarks gpu $(MODE)

reference: install  ## write docs/configuration.md from the code
	$(BIN)/python -m tests.architecture.configuration

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
