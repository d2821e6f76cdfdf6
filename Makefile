# One way to do each thing: people, hooks and CI (.ci/run) call the same targets.

PYTHON ?= python3
PYTEST_ARGS ?=
SEEDS ?= 500
FIRST ?= 0
SCENARIO ?= safety
SOAK_S ?= 300
CUT_S ?= 60
OBJECTS ?= 20000
RACES ?= 1000
POWERCUTS ?= 2000
OPT ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
STAMP := $(VENV)/.setup-done
CLIENTS_STAMP := .venv-clients/.setup-done
BENCH_STAMP := $(VENV)/.setup-bench-done
DOCS_STAMP := .venv-docs/.setup-done

# Tests and demo start processes by the thousand; without bytecode each compiles the whole package again: 0.4 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-clients setup-docs check test docs demo moves bench bench-check bench-baseline bench-docs sim rules s3tests soak mutants compiled pure \
	wheels compose-test

help:
	@echo "make setup   make $(VENV) with the package (editable) and all development tools"
	@echo "make check   format, lint, types, import contracts, tidy test, generated reference (seconds)"
	@echo "make test    all tests, in three processes: unit, contract, s3, and lab in network namespaces of its own"
	@echo "make setup-clients   an environment with S3 libraries, for tests/lab/test_clients.py"
	@echo "make docs    the documents as a site in build/site; dead links are errors"
	@echo "make demo    a cluster on this machine, shown at work"
	@echo "make moves   a cluster that changes in every way under load, and what clients noticed: make moves OBJECTS=500"
	@echo "make bench   the benchmarks"
	@echo "make bench-check   has an operation become dearer than bench/baselines say? Two minutes; make bench-baseline writes them"
	@echo "make bench-docs   docs/explanation/speed.md and its plots, from the results in bench/figures"
	@echo "make compiled   the hot modules as machine code, beside their sources (docs/adr/0011); make pure takes it back"
	@echo "make sim     runs of the simulator: make sim SEEDS=500 FIRST=1000 SCENARIO=safety"
	@echo "make rules   10,000 addresses of each rule against a second implementation, a million wrong ones against the rate"
	@echo "make mutants planted faults, and how many seeds of the simulator each takes to be seen"
	@echo "make s3tests S3TESTS=DIR   ceph/s3-tests against a lab, compared with the lists in tests/s3conformance"
	@echo "make compose-test   docker-compose.yml built, run and hurt for real (docs/how-to/compose.md); needs an engine"
	@echo "make wheels  what images need of a registry, into compose/wheels: make wheels compose-test NO_INDEX=1"
	@echo "make soak    the long form of the tests that kill, pause, cut off and fill nodes (an hour)"
	@echo
	@echo "PYTHON=python3.12 make setup       another interpreter (3.11 or later)"
	@echo "make test PYTEST_ARGS='-k cover'   a part of the tests"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; call: PYTHON=/path/to/python make setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(PIP) install --editable '.[dev,bench]'
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/unit/test_reference.py

test: setup
	$(BIN)/python -m tests.shares $(PYTEST_ARGS)

# A dead link, a heading that is not there, a page that nothing leads to: all are errors.
docs: $(DOCS_STAMP)
	.venv-docs/bin/python docs/generate.py
	.venv-docs/bin/python -m sphinx -q -W --keep-going -c docs -b html . build/site
	@echo "build/site/docs/index.html"

# Its own environment: docutils of Sphinx is too new for awscli.
setup-docs: $(DOCS_STAMP)

$(DOCS_STAMP): pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[docs]'
	@touch $@

setup-clients: $(CLIENTS_STAMP)

$(CLIENTS_STAMP): tests/clients/requirements.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip --quiet --disable-pip-version-check install --requirement $<
	@touch $@

demo: setup
	$(BIN)/ssastore demo --unattended

moves: setup
	$(BIN)/python -m ssastore.lab.moves --objects $(OBJECTS)

sim: setup
	$(BIN)/ssastore sim --seeds $(SEEDS) --first-seed $(FIRST) --scenario $(SCENARIO)

rules: setup
	SSASTORE_TEST_RULES=10000 $(BIN)/python -m pytest -s -q --timeout 1800 tests/unit/rules/test_vectors.py \
		tests/integration/test_filter.py tests/integration/test_filter_classes.py $(PYTEST_ARGS)

mutants: setup
	$(BIN)/ssastore sim --mutants all

s3tests: setup
	@test -n "$(S3TESTS)" || { echo "S3TESTS=DIR: a checkout of ceph/s3-tests (docs/explanation/testing.md)"; exit 1; }
	$(BIN)/python -m tests.s3conformance $(S3TESTS) $(S3TESTS_ARGS)

soak: setup
	SSASTORE_SOAK_S=$(SOAK_S) SSASTORE_SOAK_PAUSES_S="1 10 120" \
	SSASTORE_SOAK_CUT_S=$(CUT_S) SSASTORE_SOAK_PAIRS=12 \
	SSASTORE_SOAK_EPOCHS=100 SSASTORE_SOAK_RACES=$(RACES) SSASTORE_SOAK_COUNTS=25 SSASTORE_SOAK_LOST=$(RACES) \
	SSASTORE_TEST_POWERCUTS=$(POWERCUTS) SSASTORE_TEST_KILLS=50 SSASTORE_SOAK_DELETES=100000 SSASTORE_SOAK_OBJECTS=20000 \
	SSASTORE_SOAK_MATRIX=3 SSASTORE_SOAK_CONTROL_S=60 SSASTORE_SOAK_FUZZ=100000 SSASTORE_SOAK_IDLE=10000 SSASTORE_SOAK_FLAP_S=120 SSASTORE_SOAK_CLIENTS=10000 \
	$(BIN)/python -m pytest -s tests/lab/test_crashes.py tests/lab/test_partitions.py tests/lab/test_races.py \
		tests/lab/test_full_disks.py tests/lab/test_kill.py tests/lab/test_forgetting.py tests/lab/test_apply.py \
		tests/lab/test_kills.py tests/lab/test_etcd.py tests/sim/test_kill_matrix.py tests/sim/test_absence.py \
		tests/contract/test_store_powercut.py tests/integration/test_powercut_wire.py \
		tests/lab/test_idle.py tests/lab/test_bgp.py tests/lab/test_rules.py tests/lab/test_front.py tests/s3/test_fuzz.py $(PYTEST_ARGS)

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench

bench-check: $(BENCH_STAMP)
	$(BIN)/python -m bench.check

bench-baseline: $(BENCH_STAMP)
	$(BIN)/python -m bench.check --write

bench-docs: setup
	$(BIN)/python -m bench.speed

compiled: setup
	$(BIN)/python compile.py $(OPT)

pure:
	rm -rf build ssastore__mypyc.*.so
	find ssastore -name '*.so' -delete

wheels: setup
	rm -f compose/wheels/*.whl
	$(PIP) download --dest compose/wheels '.[uvloop]' hatchling
	rm -f compose/wheels/ssastore-*

compose-test: setup
	$(BIN)/python -m tests.composed
