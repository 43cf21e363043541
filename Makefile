# Ringside's commands. Every path is relative, so that a checkout may lie in a folder whose name has spaces.
#
#   make serve    install into .venv and start the server (HOST=127.0.0.1 PORT=8000)
#   make test     install the test tools and run everything: linters, types, Python, JavaScript, browser
#   make check    the lint half of it; check-NAME runs one (ruff, mypy, imports, tsc-page, tsc-node)
#   make bench    print figures: speed, latency, sizes; it passes or fails on nothing
#   make guests   build the teaching guests' images from their sources
#   make vendor   build static/vendor/ from package-lock.json
#   make clean    remove everything the other commands made

HOST ?= 127.0.0.1
PORT ?= 8000

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
CREATED := $(VENV)/.created
SERVE_INSTALLED := $(VENV)/.serve-installed
TEST_INSTALLED := $(VENV)/.test-installed
NODE_INSTALLED := node_modules/.package-lock.json

.PHONY: serve test check bench guests vendor clean provide
.DEFAULT_GOAL := serve

serve: $(SERVE_INSTALLED)
	@exec $(VENV)/bin/ringside serve --host "$(HOST)" --port "$(PORT)"

test: provide $(NODE_INSTALLED)
	@$(PY) -m pytest --numprocesses auto --dist loadfile

check: $(TEST_INSTALLED) $(NODE_INSTALLED)
	@$(PY) -m tests.support.checks

check-%: $(TEST_INSTALLED) $(NODE_INSTALLED)
	@$(PY) -m tests.support.checks $*

bench: $(TEST_INSTALLED)
	@$(PY) -m tests.bench

guests: $(TEST_INSTALLED)
	@$(PY) tests/support/provide.py cross-gcc
	@$(PY) -m engine.hypervisor.hypercalls > engine/guests/ringos/pv/hypercalls.h
	@$(PY) -m engine.guests.build

vendor: $(NODE_INSTALLED)
	@node static/vendor/build.mjs

clean:
	rm -rf $(VENV) node_modules build dist test-results *.egg-info \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

provide: $(TEST_INSTALLED)
	@$(PY) tests/support/provide.py chromium playwright-driver node npm qemu cross-gcc dtc gdb

$(CREATED):
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python tests/support/provide.py venv && $$python -m venv --clear $(VENV) && touch $@; \
			exit; \
		fi; \
	done; \
	echo "Ringside needs Python 3.11 or newer on PATH. On Debian 12 or later: apt-get install -y python3" >&2; exit 1

$(SERVE_INSTALLED): $(CREATED) pyproject.toml
	@echo "Installing Ringside into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(TEST_INSTALLED): $(CREATED) pyproject.toml
	@echo "Installing Ringside and its test tools into $(VENV) ..."
	@$(PIP) --editable '.[test]'
	@touch $@ $(SERVE_INSTALLED)

$(NODE_INSTALLED): package-lock.json | $(CREATED)
	@$(PY) tests/support/provide.py node npm
	@echo "Installing the JavaScript tools into node_modules ..."
	@npm ci
	@touch $@
