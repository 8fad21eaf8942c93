# Everything here needs Python >= 3.11, pip, make and git; the rest is fetched into the checkout.
.DEFAULT_GOAL := help
.PHONY: help setup test lint types format demo e2e bench lock docs wheels clean

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PLUGINS := $(wildcard plugins/*/*)
BIN := .venv/bin
READY := .venv/.ready

export UV_PYTHON_DOWNLOADS := never
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export UV_LINK_MODE := copy
export VIRTUAL_ENV := $(CURDIR)/.venv
export MYPY_CACHE_DIR := .cache/mypy
export RUFF_CACHE_DIR := .cache/ruff

help: ## show this
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

.tools/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit("kmm needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "fetching uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore --target .tools uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml $(PLUGINS:%=%/pyproject.toml) | $(UV)
	@echo "setting up .venv"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable %)
	@touch $@

setup: $(READY) ## make .venv with everything that development needs

test: $(READY) ## run the tests: no root, Go, Docker or cluster; under 3 minutes
	@$(BIN)/pytest --numprocesses 4

lint: $(READY) ## check style, types, layers, and that the lock and the generated documents are current
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo >.cache/lint-imports 2>&1 || { cat .cache/lint-imports; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@cp requirements.lock .cache/requirements.lock
	@$(MAKE) --no-print-directory lock LOCK=.cache/requirements.lock
	@diff requirements.lock .cache/requirements.lock || { echo "requirements.lock is not what pyproject.toml asks for: make lock"; exit 1; }
	@$(BIN)/python tools/docs.py --check

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

demo: $(READY) ## see the whole life of Modules, in a cluster of its own; under 30 s
	@$(BIN)/kmm demo

e2e: wheels ## use the wheels as a stranger would, and run against a real control plane (built with Go, 8 minutes once)
	@$(BIN)/pytest -m e2e --durations 5

bench: $(READY) ## measure what the issues ask for
	@$(BIN)/python tests/bench/bench.py

LOCK := requirements.lock
lock: | $(UV) ## pin every dependency, by version and hash, without download addresses
	@$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  pyproject.toml $(PLUGINS:%=%/pyproject.toml) --extra embedded --extra conformance --group dev \
	  --no-emit-package kmm-operator $(foreach plugin,$(PLUGINS),--no-emit-package kmm-$(notdir $(plugin))) \
	  --output-file $(LOCK) >/dev/null

docs: $(READY) ## write the generated documents
	@$(BIN)/python tools/docs.py

wheels: $(READY) ## build the wheels of the operator and of every plugin into dist/
	@rm -rf dist
	@$(UV) build --quiet --all-packages --wheel --no-build-isolation --out-dir dist

clean: ## remove what was made here
	@rm -rf .venv .tools .cache dist
