# Set-up needs Python >= 3.11, make and a package index; `make test` installs missing servers on Debian when it may.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
MINUTES ?= 10
EXAMPLES ?= 2000

.DEFAULT_GOAL := help

.PHONY: help install demo test check bench bench-ingest bench-growth bench-latency bench-delivery bench-idle bench-sweep bench-memory bench-windows bench-exclusion bench-segments soak lock servers

help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

install: .venv/installed ## Set up .venv with the locked dependencies and bin/connector

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip sync --quiet --python .venv --require-hashes requirements.lock
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python .venv --no-deps --editable .
	@touch $@

demo: install ## Watch a living casino arrive in the CRM (ARGS="--for 20s --json")
	$(BIN)/connector demo $(ARGS)

test: install servers ## Run every test that this machine can carry (ARGS="-k name")
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

check: install ## Lint, types, layers
	$(BIN)/ruff format --check connector tests bench
	$(BIN)/ruff check connector tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## Measure all speeds, one table and bench/results.json (ARGS="--bets 200000")
	$(BIN)/python -m bench $(ARGS)

bench-ingest: install ## Measure a million casino bets into the store, beside plain COPY, dlt and sling (ARGS="--bets 200000 --runs 1")
	$(BIN)/python -m bench.ingest $(ARGS)

bench-growth: install ## Measure the same into a store that has twenty million events
	$(BIN)/python -m bench.growth $(ARGS)

bench-latency: install ## Measure seconds from commit to store and API, also beside 2,000 bets/s
	$(BIN)/python -m bench.latency $(ARGS)

bench-idle: install ## Measure what a daemon with nothing to do costs, here and at the replica
	$(BIN)/python -m bench.idle $(ARGS)

bench-sweep: install ## Measure what looking back costs the replica
	$(BIN)/python -m bench.sweep $(ARGS)

bench-memory: install ## Measure the daemon's memory at a first load of five million rows
	$(BIN)/python -m bench.memory $(ARGS)

bench-windows: install ## Measure midnight for a million depositors
	$(BIN)/python -m bench.windows $(ARGS)

bench-delivery: install ## Measure items/s to the API, and live events beside history
	$(BIN)/python -m bench.delivery $(ARGS)

bench-exclusion: install ## Measure an exclusion with a million events pending
	$(BIN)/python -m bench.exclusion $(ARGS)

bench-segments: install ## Measure fifty realtime segments over a million players
	$(BIN)/python -m bench.segments $(ARGS)

soak: install servers ## Ten minutes of load and faults, then every key compared (MINUTES=10)
	CONNECTOR_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/scenarios/committed -k committed_is_stored -q
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

lock: ## Compile requirements.lock anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --all-extras --group dev pyproject.toml -o requirements.lock

servers: # MariaDB and ODBC for the tests, where apt and root are there; no daemon is started
	@.ci/servers
