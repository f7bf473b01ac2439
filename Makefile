# `make` explains itself. Everything runs from .venv at the root of the repository.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kafka test test-full chaos chaos-one chaos-three \
  chaos-storms chaos-kills chaos-workers fuzz check format bench kafka kafka-stop kafka-3 kafka-3-stop clean

PYTHON ?= python3
KAFKA_PORT ?= 9092
export KAFKA_PORT

BIN := .venv/bin
ifndef CHAOS_SEED
CHAOS_SEED := $(shell date +%s)
endif
CHAOS_FIGURES := build/chaos.jsonl
export CHAOS_SEED CHAOS_FIGURES
CHAOS := $(BIN)/python -m pytest -m chaos -s -o faulthandler_timeout=1800 --randomly-seed=$(CHAOS_SEED)
ON_THREE := $(addprefix tests/kafka/test_,local_cluster.py three_nodes.py storms.py kills_on_three.py)
WORKERS := tests/kafka/test_takeover.py tests/kafka/test_workers_chaos.py
# Newer than pyproject.toml and constraints.txt exactly when the environment matches them.
READY := .venv/.ready

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(READY)  ## create .venv and install the package with its development tools

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(READY)  ## live view on generated ticks, no broker needed
	$(BIN)/stream-calib demo

demo-kafka: $(READY) kafka  ## the same demo through a real local Kafka
	$(BIN)/stream-calib demo --kafka 127.0.0.1:$(KAFKA_PORT)

# Few, whatever the machine: those on Kafka start brokers and services besides, and have deadlines.
TEST_JOBS ?= 2
test: $(READY)  ## the tests; those on Kafka run when a broker can be had
	@$(BIN)/stream-calib warmup
	@$(BIN)/python -m pytest --numprocesses=$(TEST_JOBS) --dist=loadfile --timeout=600

test-full: $(READY)  ## also the slow tests, then the kernels once more without the compiler
	$(BIN)/python -m pytest -m "not bench and not chaos and not fuzz"
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/kernels

# Each part is less than an hour, prints its seed, and repeats with `make chaos-... CHAOS_SEED=...`.
chaos: $(READY)  ## break everything: 500 kills -9, three nodes, random storms; prints a table
	@rm -f $(CHAOS_FIGURES)
	@$(MAKE) --no-print-directory --keep-going chaos-one chaos-workers chaos-three chaos-storms chaos-kills; \
	  failed=$$?; $(BIN)/python -m tests.kafka.chaos_table $(CHAOS_FIGURES); exit $$failed

chaos-one: $(READY)  ## of these, the faults and kills on one node
	$(CHAOS) tests/kafka tests/simulation $(addprefix --ignore=,$(ON_THREE) $(WORKERS))

chaos-workers: $(READY)  ## three workers share six universes, and are killed, frozen, stopped, joined
	$(CHAOS) $(WORKERS)

chaos-three: $(READY)  ## nodes killed, frozen and restarted, leaders and coordinators moved
	$(CHAOS) tests/kafka/test_local_cluster.py tests/kafka/test_three_nodes.py

chaos-storms: $(READY)  ## faults of every kind at random times
	$(CHAOS) tests/kafka/test_storms.py

chaos-kills: $(READY)  ## kill -9 of the service on three nodes
	$(CHAOS) tests/kafka/test_kills_on_three.py

fuzz: $(READY)  ## garbage by the million into everything that reads
	$(BIN)/python -m pytest -m fuzz -s tests/fuzz

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
	@$(PYTHON) -m deploy.kafka.broker start

kafka-stop:  ## stop that Kafka and drop its data
	@$(PYTHON) -m deploy.kafka.broker stop

kafka-3:  ## start three real nodes on 127.0.0.1:9092, 9093 and 9094 (KAFKA_PORT is the first)
	@$(PYTHON) -m deploy.kafka.cluster start

kafka-3-stop:  ## stop these nodes and drop their data
	@$(PYTHON) -m deploy.kafka.cluster stop

clean:  ## remove caches and build products; .venv and Kafka's jars stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find stream_calib tests deploy -name __pycache__ -prune -exec rm -rf {} +
