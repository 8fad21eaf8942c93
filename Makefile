# Everything here needs Python >= 3.11, pip, make and git; the rest is fetched into the checkout.
.DEFAULT_GOAL := help
.PHONY: help setup test lint types format demo e2e e2e-kaniko bench bench-smoke lock docs wheels clean

PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PLUGINS := $(wildcard plugins/*/*)
EXAMPLE := examples/acme-kmm
BIN := .venv/bin
READY := .venv/.ready

export UV_PYTHON_DOWNLOADS := never
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export UV_LINK_MODE := copy
export VIRTUAL_ENV := $(CURDIR)/.venv
export MYPY_CACHE_DIR := .cache/mypy
export RUFF_CACHE_DIR := .cache/ruff

help: ## show this
	@sed -n '/^[^ ]/s/ *\\$$//p' $(LOCK) >dist/constraints.txt

# What fails here is told in one line that says what to do; all of it stands in .cache/setup.log.
SETUP_LOG := .cache/setup.log
define UNFETCHED
{ if grep -qiE 'no module named pip|ensurepip' $(SETUP_LOG); then \
    echo "$(PYTHON) has no pip: install it (apt install python3-pip, dnf install python3-pip), or put uv $(UV_VERSION) on the PATH"; \
  elif grep -qiE 'certificate|SSL|UnknownIssuer' $(SETUP_LOG); then \
    echo "the package index is not trusted: set PIP_CERT and SSL_CERT_FILE to your organization's CA file; more in $(SETUP_LOG)"; \
  elif grep -qiE 'retrying|connection|connect|timed? ?out|resolve|dns|network|proxy' $(SETUP_LOG); then \
    echo "no package index can be reached: set HTTPS_PROXY, or PIP_INDEX_URL and UV_DEFAULT_INDEX to a mirror; more in $(SETUP_LOG)"; \
  else \
    echo "setting up failed: $$(grep -vE '^ *$$' $(SETUP_LOG) | tail -n 1 | cut -c 1-200); more in $(SETUP_LOG)"; \
  fi >&2; exit 2; }
endef

.PHONY: python
python:
	@command -v $(PYTHON) >/dev/null || { echo "kmm needs Python 3.11 or newer, and there is no $(PYTHON): make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kmm needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'): make PYTHON=python3.12 ..." >&2; exit 2; }
	@mkdir -p .cache

.tools/bin/uv: | python
	@echo "fetching uv $(UV_VERSION) into .tools"
	@$(PYTHON) -m pip install --disable-pip-version-check --no-warn-script-location --root-user-action ignore --target .tools uv==$(UV_VERSION) >$(SETUP_LOG) 2>&1 || $(UNFETCHED)

$(READY): requirements.lock pyproject.toml $(PLUGINS:%=%/pyproject.toml) | python $(UV)
	@echo "setting up .venv"
	@{ $(UV) venv --quiet --allow-existing --python $(PYTHON) .venv \
	  && $(UV) pip install --quiet --compile-bytecode --require-hashes --requirement requirements.lock \
	  && $(UV) pip install --quiet --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable %); } >$(SETUP_LOG) 2>&1 || $(UNFETCHED)
	@touch $@

setup: $(READY) ## make .venv with everything that development needs

test: $(READY) ## run the tests: no root, Go, Docker or cluster; under 4 minutes
	@$(BIN)/pytest --numprocesses 4

lint: $(READY) ## check style, types, layers, and that the lock and the generated documents are current
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo >.cache/lint-imports 2>&1 || { cat .cache/lint-imports; exit 1; }
	@$(BIN)/mypy
	@cd $(EXAMPLE) && MYPY_CACHE_DIR=$(CURDIR)/.cache/mypy-example $(CURDIR)/$(BIN)/mypy
	@$(BIN)/basedpyright
	@cp requirements.lock .cache/requirements.lock
	@$(MAKE) --no-print-directory lock LOCK=.cache/requirements.lock
	@diff requirements.lock .cache/requirements.lock || { echo "requirements.lock is not what pyproject.toml asks for: make lock"; exit 1; }
	@$(BIN)/python tools/docs.py --check

format: $(READY) ## format the code
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

demo: $(READY) ## see the whole life of Modules, in a cluster of its own, with a vendor's driver; under 30 s
	@rm -rf .cache/vendor
	@$(UV) pip install --quiet --no-deps --no-build-isolation --target .cache/vendor ./$(EXAMPLE)
	@$(BIN)/kmm demo --plugins .cache/vendor $(if $(SVG),--svg $(SVG))

e2e: wheels ## the wheels as a stranger uses them; a real control plane (built with Go, 8 minutes once); real builds, and kernels under Secure Boot (root, Debian: installs buildah, qemu)
	@$(BIN)/pytest -m e2e --durations 5

e2e-kaniko: $(READY) ## build with kaniko for real; root (its executor is built with Go, 8 minutes once)
	@$(BIN)/pytest -m kaniko --durations 5

bench: $(READY) ## measure it all, also on a real control plane, and print it (an hour); see CONTRIBUTING
	@$(BIN)/python tests/bench/bench.py
	@$(BIN)/python tests/bench/compare.py

bench-smoke: $(READY) ## the same on a real control plane in small, in 2 minutes; fails where too much is asked
	@$(BIN)/python tests/bench/compare.py --smoke

LOCK := requirements.lock
lock: | $(UV) ## pin every dependency, by version and hash, without download addresses
	@$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  pyproject.toml $(PLUGINS:%=%/pyproject.toml) --extra embedded --extra conformance --group dev \
	  --no-emit-package kmm-operator $(foreach plugin,$(PLUGINS),--no-emit-package kmm-$(notdir $(plugin))) \
	  --output-file $(LOCK) >/dev/null

docs: $(READY) ## write the generated documents
	@$(BIN)/python tools/docs.py

wheels: $(READY) ## build the wheels of the operator and of every plugin into dist/, and the versions of what they need
	@rm -rf dist
	@$(UV) build --quiet --all-packages --wheel --no-build-isolation --out-dir dist
	@# The versions of the lock, for who installs them: pip takes no hashes of wheels that were made a moment ago.
	@sed -n 's/^\([A-Za-z0-9._-]*==[^\\]*[^ \\]\) *\\*$$/\1/p' $(LOCK) >dist/constraints.txt

clean: ## remove what was made here
	@rm -rf .venv .tools .cache dist
