# `make demo` and `make test` do the whole set-up on a fresh machine, then run.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What tests need of npm: BullMQ itself, Grafana's types, axe for the page.
NODE := $(foreach needed,bullmq grafana axe,tests/$(needed)/node_modules/.installed)

# Programs that tests start, and the Debian packages that bring them.
PROGRAMS := curl chromium faketime redis-server node npm prometheus promtool prometheus-alertmanager amtool
PACKAGES := curl chromium faketime redis-server nodejs npm prometheus prometheus-alertmanager
MISSING = $(strip $(foreach program,$(PROGRAMS),$(if $(shell command -v $(program)),,$(program))))

.PHONY: demo test bench soak lint audit format rules dashboards screenshots programs clean

demo: $(VENV)/.demo
	@exec $(BIN)/bullmq-exporter --demo

test: programs $(NODE) lint
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pip check

# Needs the network: known holes of what is installed.
audit: $(VENV)/.dev
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit --skip-editable

# About a quarter of an hour; shorter with ROUNDS=1 STEADY=60.
bench: programs $(NODE) $(VENV)/.dev tests/bench/peers/node_modules/.installed
	$(BIN)/python -m tests.bench --rounds $(or $(ROUNDS),5) --steady-seconds $(or $(STEADY),600) $(if $(PARTS),--parts $(PARTS))

# Half an hour; shorter with MINUTES=5.
soak: programs $(NODE) $(VENV)/.dev
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

# Some 600 MB of Grafana's packages, and six minutes of the demo.
screenshots: $(VENV)/.dev tests/drawing/node_modules/.installed
	npm run --prefix tests/drawing --silent build
	$(BIN)/python -m tests.drawing

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is made from config/prometheus/rules.
rules: $(VENV)/.dev
	$(BIN)/python config/kubernetes/prometheus_rule.py

dashboards: $(VENV)/.dev
	$(BIN)/python -m dashboards

programs:
ifneq ($(MISSING),)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  set -x; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $(if $(filter node npm,$(MISSING)),nodejs npm) $(filter-out nodejs npm,$(PACKAGES)) >/dev/null; \
	else \
	  echo "The tests need these programs: $(MISSING). On Debian: sudo apt-get install $(PACKAGES)" >&2; exit 1; \
	fi
endif

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.demo: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python setup.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $@ $(VENV)/.demo

# Not `npm ci`: it refuses a lock file without the optional binaries of other platforms.
%/node_modules/.installed: %/package-lock.json
	npm install --prefix $* --no-save --silent
	@touch $@

clean:
	rm -rf $(VENV) tests/*/node_modules build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
