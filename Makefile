# batchd: what a person types. Everything lives in .venv in this checkout; no other environment is used.
#
#   make demo                 the real daemon on a sample database, until Ctrl-C
#   make test                 the whole suite: unit, integration on real databases, real processes
#   make lint                 format, lint, types, import contracts
#   make fast                 lint and the unit tests: what to run before each commit
#   make stress KILLS=200 SEED=1 DIALECT=postgresql     kill -9 storms, and what became of every fire; HTTP under load
#   make stress SEEDS=3000    the Debian package built twice and compared; also so many simulated worlds; python -m tests.simulation --seed N lives through one again
#   make bench                measured beside plain APScheduler
#   make bench-dashboard      the dashboard's queries on five million runs
#   make deb                  the Debian package, into dist/; SUITE=trixie for another release than this machine's
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 4 ? 2 * cores : 8)))
# The tests' files live in memory where there is room for them.
TEST_TEMP := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 6000000 { print "PYTEST_DEBUG_TEMPROOT=/dev/shm" }')
KILLS ?= 200
SEED ?= 1
SEEDS ?= 3000
DIALECT ?=
STRESS ?=
BENCH ?=
SUITE ?=
EXTRAS ?= xlsx
PYTEST ?=

unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSTARTUP PIP_USER PIP_TARGET PIP_PREFIX

.PHONY: help setup demo lint fast test stress bench bench-dashboard deb

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@PYTHON='$(PYTHON)' .ci/setup dev

demo:
	@PYTHON='$(PYTHON)' .ci/setup
	@$(BIN)/python .ci/foreground.py $(BIN)/python -m batchd demo --config config.example.toml

lint: setup
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m ruff check --quiet .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

fast: lint
	$(BIN)/python -m pytest tests/unit -q

test: setup
	$(TEST_TEMP) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(PYTEST)

stress: setup
	BATCHD_TEST_CRON=full $(BIN)/python -m pytest -q --timeout 3600 tests/unit/moving/test_crontab_fires.py
	BATCHD_TEST_BLOWS=all $(BIN)/python -m pytest -q -n $(WORKERS) --timeout 1800 tests/e2e/test_contract_*.py tests/e2e/test_mail.py
	BATCHD_TEST_SERVERS=all $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal tests/integration
	$(BIN)/python -m tests.e2e.stress --kills $(KILLS) --seed $(SEED) $(if $(DIALECT),--dialect $(DIALECT)) $(STRESS)
	BATCHD_TEST_API_EXAMPLES=100 $(BIN)/python -m pytest -q -n $(WORKERS) --timeout 1800 tests/integration/test_web_schemathesis.py
	$(BIN)/python -m tests.bench.bench_live --most 1.5
	.ci/deb/twice
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(SEED)

bench-dashboard: setup
	$(BIN)/python -m tests.bench.bench_dashboard $(BENCH)

bench: setup
	$(BIN)/python -m tests.bench.bench_scheduler $(BENCH)

deb:
	@PYTHON='$(PYTHON)' .ci/setup
	@$(BIN)/python .ci/deb/build.py --extras '$(EXTRAS)' $(if $(SUITE),--suite $(SUITE))
