# `make` explains itself. Everything runs from .venv at the root of the repository.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kafka test test-kafka test-others test-full chaos check format bench kafka kafka-stop clean

PYTHON ?= python3
KAFKA_PORT ?= 9092
export KAFKA_PORT

BIN := .venv/bin
LONG := full or bench or chaos
# Newer than pyproject.toml and constraints.txt exactly when the environment matches them.
READY := .venv/.ready

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: $(READY)  ## create .venv and install the package with its development tools

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(READY)  ## live view on generated ticks, no broker needed
	$(BIN)/stream-calib demo

demo-kafka: $(READY) kafka  ## the same demo through a real local Kafka
	$(BIN)/stream-calib demo --kafka 127.0.0.1:$(KAFKA_PORT)

# Those on Kafka mostly wait for processes and brokers: the others run meanwhile. What each says
# comes when it is done.
test: $(READY)  ## the tests; those on Kafka run when a broker can be had
	@$(BIN)/stream-calib warmup
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target test-kafka test-others

test-kafka test-others: $(READY)
	@$(BIN)/python -m pytest -m "$(if $(filter test-kafka,$@),kafka,not kafka) and not ($(LONG))"

test-full: $(READY)  ## also the slow tests, then the kernels once more without the compiler
	$(BIN)/python -m pytest -m "not bench and not chaos"
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/kernels

chaos: $(READY)  ## end the service in every way, a hundred times and more
	$(BIN)/python -m pytest -m chaos -s tests/kafka tests/simulation

check: $(READY)  ## lint, format, types, import floors, shape of the tree
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/test_tree.py

format: $(READY)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)  ## measure, and hold every ratio against its limit
	$(BIN)/python -m pytest tests/bench -m bench -o python_files='bench_*.py' -o python_functions='bench_*' -p no:randomly -s

kafka:  ## start a real Kafka on 127.0.0.1:9092 without Docker (KAFKA_PORT moves it)
	@$(PYTHON) deploy/kafka/broker.py start

kafka-stop:  ## stop that Kafka and drop its data
	@$(PYTHON) deploy/kafka/broker.py stop

clean:  ## remove caches and build products; .venv and Kafka's jars stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find stream_calib tests deploy -name __pycache__ -prune -exec rm -rf {} +
