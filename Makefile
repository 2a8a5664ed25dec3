# `make` alone prints this file's help. PYTHON picks the interpreter that makes the environment,
# VENV says where the environment lies, ARGS is added to the command that a target runs.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?=
SWEEP ?= network.dim=2,8,32
DEMO_SIZE ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench verdict-check simulate torture fuzz soak pocket docs lock clean

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(STAMP)  ## Make .venv and install the project into it (quick when nothing changed)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## Train, sweep and compare on the embedded model; the last line is the report
	@# A process a core with one thread, each training several runs in one pass: docs/stacking.md.
	@# DEMO_SIZE holds settings that make its twelve runs of the base config smaller.
	$(BIN)/python train.py -m $(SWEEP) hydra/launcher=stacked trainer.threads=1 $(DEMO_SIZE) \
	  $(if $(DEMO_DIR),hydra.sweep.dir=$(DEMO_DIR)) $(ARGS)

test: $(STAMP)  ## Run the fast tests, files side by side on at most four cores (ARGS="-n 0": one process)
	$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## Run the tests that train and sample on the embedded model for longer
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Mend style and formatting where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verdict-check: $(STAMP)  ## Studies without differences, and planted effects: is the verdict right? (hours; resumes)
	$(BIN)/python -m lora_lab.study.check $(ARGS)

simulate: $(STAMP)  ## Simulate studies: how often is a verdict false, what is seen? (docs/verdicts.md, minutes)
	$(BIN)/python -m lora_lab.study.simulate $(ARGS)

torture: $(STAMP)  ## Kill trainings, sweeps and drawings at random and compare (ARGS="--kills 50 --seed 7")
	PYTHONPATH=tests $(BIN)/python -m reliability.torture $(ARGS)

fuzz: $(STAMP)  ## Feed mutated input to every reader (ARGS="--cases 100000")
	PYTHONPATH=tests $(BIN)/python -m reliability.fuzz $(ARGS)

soak: $(STAMP)  ## Long runs: 20,000 steps, 200 runs, a report of 1,000 runs (hours)
	PYTHONPATH=tests $(BIN)/python -m reliability.soak $(ARGS)

bench: $(STAMP)  ## Measure steps, start-up, drawing, stacks and sweeps (ARGS="sweep --rounds 1")
	$(BIN)/python -m benchmarks $(ARGS)

pocket: $(STAMP)  ## Draw the data of the embedded model, pretrain and evaluate it (hours; resumes)
	@# Only for CLIP's vocabulary file: what the package itself needs would pull torchvision in.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps open_clip_torch==3.3.0
	$(BIN)/python -m lora_lab.pocket $(ARGS)

docs: $(STAMP)  ## Write docs/settings.md from the config and check every link in the docs
	$(BIN)/python docs/build.py $(ARGS)

lock: $(STAMP)  ## Write constraints.txt from what .venv has installed, all extras included
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip list --format=freeze --exclude-editable \
	  | sed 's/+.*//' | grep -vE '^(pip|wheel)=' | sort -f; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:  ## Remove the environment, caches and builds; runs/ stays
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
