# Everything a developer types; `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCK ?= newest
TORCH ?= cpu
STAMP := $(VENV)/.installed-$(LOCK)-$(TORCH)
# Tests wait for a quarter of their time: three workers keep two processors busy.
WORKERS ?= 3
SHUFFLE ?=
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=1 $(if $(SHUFFLE),--shuffle $(SHUFFLE))

export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive
# Tests start many programs; those of an environment that writes no bytecode would compile all of eravane, each.
export PYTHONDONTWRITEBYTECODE =

# Kernels are compiled before the tests, not by each of their workers; again where their sources have changed.
KERNELS := $(wildcard kernels/eravane_kernels/*.py kernels/eravane_kernels/cpu/*.py)
COMPILED := $(VENV)/.compiled
# The stubs of the oldest libraries lack what the newest ones name: types are checked against the newest alone.
CHECKS := style $(if $(filter oldest,$(LOCK)),,types) contracts

.PHONY: help install lock fresh demo lint $(CHECKS) checked test test-full bench gpu-check reference clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) $(COMPILED)  ## make .venv with eravane and its CPU libraries; TORCH=cuda for PyPI's torch, LOCK=oldest

$(STAMP): pyproject.toml tools/install $(wildcard constraints/*.txt)
	PYTHON=$(PYTHON) VENV=$(VENV) LOCK=$(LOCK) TORCH=$(TORCH) tools/install
	rm -f $(VENV)/.installed-*
	touch $@

$(COMPILED): $(STAMP) $(KERNELS)
	$(BIN)/python -m eravane.pipeline.warm
	touch $@

lock:  ## renew constraints/: newest versions for each Python, and the oldest allowed
	PYTHON=$(PYTHON) tools/lock

fresh:  ## try install, demo and test on every bare machine and Python that can be had here
	tools/fresh-machine

demo: install  ## make a dataset, run the whole batch on it, show the result
	$(BIN)/eravane demo

lint: $(CHECKS)  ## format, lint, types and import contracts

style: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

checked: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=2 $(COMPILED) $(CHECKS)

test: checked  ## lint, then every test but the long proofs; WORKERS=4, SHUFFLE=seed for another order
	$(PYTEST) -m 'not full'

test-full: checked  ## lint, then every test
	$(PYTEST)

bench: install  ## run every benchmark
	$(BIN)/python -m benchmarks all

MODE ?= --quick
gpu-check:  ## prove it on a GPU: checks and measurements, resumable; PYTHON=... MODE=--full to choose; needs no install
	PYTHONPATH=engine:kernels:.$${PYTHONPATH:+:$$PYTHONPATH} $(if $(wildcard $(BIN)/python),$(if $(filter python3,$(PYTHON)),$(BIN)/python,$(PYTHON)),$(PYTHON)) -m benchmarks gpu $(MODE)

reference: install  ## write docs/configuration.md from the code
	$(BIN)/python -m tests.architecture.configuration

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) demo .fresh .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
