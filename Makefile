# Everything is installed into .venv at the versions of requirements.lock; a second run installs nothing.
# PYTHON=/path/to/python chooses the interpreter that .venv is made with.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test frameworks check bench soak protos fmt lock clean

BIN := .venv/bin
CODE := $(wildcard src tests benchmarks examples tools hatch_build.py)

# An interpreter counts only if it runs (a version manager's shim may not) and can make a venv.
# Those for which every locked package ships a wheel come first.
CANDIDATES := $(PYTHON) python3.12 python3.11 python3.13 python3 python
FITNESS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: protos ## run the demonstration on this folder; DIR=path surveys another
	$(BIN)/python examples/demo.py $(if $(DIR),"$(DIR)")

test: protos ## run the tests; ARGS="-k name" is passed to pytest, ENGINE=grpcio or native chooses the engine
	$(if $(ENGINE),RUNSTREAM_ENGINE=$(ENGINE)) $(BIN)/python -m pytest $(ARGS)

frameworks: .venv/.frameworks ## install the agent frameworks, so that `make test` tests the adapters too

check: protos ## lint, formatting, types, import rules, protos and the lock
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python tools/protos.py lint
	$(BIN)/python -m pip check
	$(BIN)/python tools/lock.py check

bench: protos ## run the benchmarks; ARGS is passed to them
	$(BIN)/python -m benchmarks $(ARGS)

soak: protos ## strike servers with every fault for MINUTES=60; SEED=, ROUND=, ENGINE=, JSON=file
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) \
	  $(if $(ROUND),--round $(ROUND)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(JSON),--json "$(JSON)")

protos: .venv/.linked ## bring the generated code up to date
	@$(BIN)/python tools/protos.py

fmt: .venv/.locked ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

lock: .venv/.locked ## rewrite the locks; UPGRADE=1 moves to the newest versions
	$(BIN)/python tools/lock.py $(if $(UPGRADE),upgrade)

clean: ## remove .venv, generated code and caches
	rm -rf .venv build dist htmlcov .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf src/runstream/v1 src/runstream/stored src/runstream/_buf
	find src tests tools benchmarks examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps are written last, so an interrupted run is done again.
.venv/.locked: requirements.lock
	@for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c '$(FITNESS)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$${python:-}" ]; then \
	  echo 'No Python 3.11 or newer that can make a venv was found (Debian and Ubuntu: apt-get install python3-venv).' >&2; \
	  echo 'Install one, or name it: make PYTHON=/path/to/python ...' >&2; \
	  exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || { \
	  echo 'Installing the locked packages failed; what pip said stands above.' >&2; \
	  echo 'If it could not build plyvel: it has no wheel for this Python. Use Python 3.11 or 3.12 (PYTHON=...),' >&2; \
	  echo 'or install the LevelDB headers (libleveldb-dev) and a C++ compiler.' >&2; \
	  exit 1; \
	}
	@touch $@

.venv/.frameworks: .venv/.linked requirements-frameworks.lock
	@echo "Installing the agent frameworks that the adapters are tested with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-frameworks.lock
	@touch $@

.venv/.linked: .venv/.locked pyproject.toml hatch_build.py
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --check-build-dependencies --editable .
	@touch $@
