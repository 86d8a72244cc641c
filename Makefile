# Two commands do all the set-up: `make reproduce-small` (the main job) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# the gpu extra (unsloth) only where there is a GPU to use it
EXTRAS := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && echo gpu,)
# one file a process: what a file's tests share is made once; in the order of the files, which has the long ones first
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup reproduce-small reproduce-full reproduce-micro test test-all lint bench mutants fuzz audit notebook clean
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/installed  ## make .venv and install the kit with the tested versions

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed, this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	@echo "setting up .venv (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)test]'
	@touch $@

.venv/installed-dev: .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)dev]'
	@touch $@

reproduce-small: setup  ## the main job: a small open model on a GPU, else the micro organism on the CPU
	@$(BIN)/repro run reproduce-small

reproduce-full: setup  ## every arm, ablations too (hours on a GPU; the organism: some minutes)
	@$(BIN)/repro run reproduce-full

reproduce-micro: setup  ## the same on the embedded micro organism, whatever the machine
	@$(BIN)/repro run reproduce-micro

test: setup  ## everything that runs in a few minutes, offline
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: setup  ## also the long ones
	@$(BIN)/python -m pytest $(PARALLEL)

lint: .venv/installed-dev  ## ruff and mypy, quiet when all is well
	@$(BIN)/ruff check --quiet . && $(BIN)/mypy --no-error-summary

bench: .venv/installed-dev  ## speed as ratios within one run: where the time goes, against what, how it grows (half an hour)
	@$(BIN)/python bench/micro.py
	@$(BIN)/python bench/speed.py
	@$(BIN)/python bench/ray_sweep.py

mutants: .venv/installed-dev  ## planted bugs: how many the tests catch (long)
	@$(BIN)/python bench/planted.py
	@$(BIN)/python bench/mutants.py

notebook: setup  ## notebooks/reproduce_small.ipynb from its reviewed source
	@$(BIN)/python notebooks/build.py

fuzz: setup  ## ten minutes of hostile input for each reader of files (MINUTES=10)
	@PYTHONPATH=. $(BIN)/python tests/unit/fuzzing.py --minutes $(or $(MINUTES),10)

audit: setup  ## known weaknesses of the tested versions (asks a vulnerability service over the network)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(BIN)/python -m pip_audit --no-deps --requirement constraints.txt

clean:  ## remove .venv and caches; runs/ stays
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis mutants
