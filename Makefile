# `make demo` and `make test` do the whole set-up on a fresh machine, then run. See CONTRIBUTING.md.

PYTHON ?= python3
# Each process of the tests would compile all that it imports: 3 s of CPU, many times.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
# Prometheus 3, its Alertmanager and Docker Compose 2, of Debian testing: the stable ones are older.
NEWEST := tests/newest/.installed
# In place of the Dockerfile's base, which only a registry of images has: Debian 13, Python 3.13.
BASE := tests/image/base.tar
# What tests need of npm: BullMQ itself, Grafana's types, axe for the page.
NODE := $(foreach needed,bullmq grafana axe,tests/$(needed)/node_modules/.installed)
# What the page's code is made of and checked with (package.json), and types of what the API answers.
PAGE := node_modules/.installed
API_TYPES := node_modules/.types/openapi.d.ts
PAGE_CODE := exporter/web/page tests/unit/page tests/support package.json tsconfig.json biome.json
VENDORED := exporter/web/page/vendor

# Programs that tests start, and the Debian packages that bring them.
PROGRAMS := buildah curl chromium faketime mmdebstrap pgbouncer redis-server node npm prometheus promtool prometheus-alertmanager amtool wrk
PACKAGES := buildah curl chromium faketime mmdebstrap pgbouncer postgresql redis-server nodejs npm prometheus prometheus-alertmanager wrk
PIN := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make pins"
# Debian has PostgreSQL's programs outside of the path.
MISSING = $(strip $(foreach program,$(PROGRAMS),$(if $(shell command -v $(program)),,$(program))) $(if $(wildcard /usr/lib/postgresql/*/bin/initdb)$(shell command -v initdb),,postgresql))

.PHONY: demo setup test unit coverage bench soak lint audit format rules docs scoreboard dashboards screenshots pins vendor programs node release-check clean

demo: $(VENV)/.demo
	@exec $(BIN)/bullmq-exporter --demo

# All that the tests need. The image is built and run by root only.
setup:
	$(MAKE) --jobs=3 programs $(NODE) $(NEWEST) $(VENV)/.dev $(if $(filter 0,$(shell id -u)),$(BASE))
	$(MAKE) $(PAGE)

test: setup
	$(MAKE) lint
	$(BIN)/pytest

# What needs no server: seconds. None of them waits, so that a process for each core is enough.
unit: $(VENV)/.dev $(PAGE)
	$(BIN)/pytest --numprocesses=auto tests/unit

# How much of the exporter the tests run that start nothing but it and Redis. Not a part of `make test`: tracing
# takes half as much CPU again, and is not what users run.
coverage: programs $(NODE) $(VENV)/.dev $(PAGE)
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest tests/unit tests/integration tests/e2e/test_demo.py; tests=$$?; \
	  $(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$tests

lint: $(VENV)/.dev $(PAGE) $(API_TYPES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_words.py
	$(BIN)/pip check
	$(BIN)/hadolint --failure-threshold=style Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec config/compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet --no-progress .github
	node_modules/.bin/biome check --error-on-warnings $(PAGE_CODE)
	node_modules/.bin/tsc

# What the image installs, with hashes: the newest versions that setup.cfg allows.
pins: $(VENV)/.dev
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $(PIN) - --output-file config/image/build-requirements.txt
	$(PIN) setup.cfg --extra postgres --output-file config/image/requirements.txt

# The libraries of the page, as package-lock.json has them, with their licences.
vendor: $(PAGE)
	cp node_modules/preact/dist/preact.mjs $(VENDORED)/preact.js
	cp node_modules/preact/LICENSE $(VENDORED)/preact.LICENSE.txt
	cp node_modules/htm/dist/htm.mjs $(VENDORED)/htm.js
	cp node_modules/htm/LICENSE $(VENDORED)/htm.LICENSE.txt

# What a release consists of, in dist/; with TAG=v1.2.3 as the workflow does it.
release-check: $(VENV)/.dev
	$(BIN)/python tools/release.py $(if $(TAG),--tag '$(TAG)')

# Needs the network: known holes of what is installed.
audit: $(VENV)/.dev
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit --skip-editable

# About 50 minutes; shorter with ROUNDS=1 STEADY=60.
bench: programs $(NODE) $(VENV)/.dev tests/bench/peers/node_modules/.installed tests/bench/shipped/.installed
	$(BIN)/python -m tests.bench --rounds $(or $(ROUNDS),5) --steady-seconds $(or $(STEADY),600) $(if $(PARTS),--parts $(PARTS))

# Half an hour; shorter with MINUTES=5.
soak: programs $(NODE) $(VENV)/.dev
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

# Some 600 MB of Grafana's packages, and six minutes of the demo.
screenshots: $(VENV)/.dev tests/drawing/node_modules/.installed
	npm run --prefix tests/drawing --silent build
	$(BIN)/python -m tests.drawing

format: $(VENV)/.dev $(PAGE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	node_modules/.bin/biome check --write $(PAGE_CODE)

# What is made from config/prometheus/rules.
rules: $(VENV)/.dev
	$(BIN)/python config/kubernetes/prometheus_rule.py

# References in docs/, from the code.
docs: $(VENV)/.dev
	$(BIN)/python docs/reference.py

# docs/alerts.md, measured anew: five minutes.
scoreboard: $(VENV)/.dev
	$(BIN)/python -m tests.rules.incidents.document

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

# All that lint and unit tests need of the programs.
node:
	@command -v npm >/dev/null || { echo "Node is missing. On Debian: sudo apt-get install nodejs npm" >&2; exit 1; }

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

# What the image installs, and nothing of what the tests need.
tests/bench/shipped/.installed: config/image/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

# A copy of Debian that lies about for long is read too (Valid-Until), and its manuals are not.
$(NEWEST): | programs
	rm -rf $(@D)
	mmdebstrap --quiet --variant=extract $(if $(filter-out 0,$(shell id -u)),--mode=chrootless) --aptopt='Acquire::Check-Valid-Until "false"' \
	  --dpkgopt='path-exclude=/usr/share/*' --dpkgopt='path-include=/usr/share/prometheus/*' \
	  --include=docker-compose,prometheus,prometheus-alertmanager testing $(@D)
	@touch $@

$(BASE): | programs
	mkdir -p $(@D)
	mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
	  --customize-hook='ln -s python3 "$$1/usr/bin/python"' trixie $@

# Not `npm ci`: it refuses a lock file without the optional binaries of other platforms.
%/node_modules/.installed: %/package-lock.json | programs
	npm install --prefix $* --no-save --silent
	@touch $@

node_modules/.installed: package-lock.json | node
	npm install --no-save --silent
	@touch $@

$(API_TYPES): exporter/web/openapi.json $(PAGE)
	@mkdir -p $(@D)
	node_modules/.bin/openapi-typescript $< --output $@

clean:
	rm -rf $(VENV) $(BASE) .coverage .coverage.* node_modules tests/newest tests/bench/shipped tests/*/node_modules build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
