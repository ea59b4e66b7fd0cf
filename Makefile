# make run    set up everything and serve the demo models on http://127.0.0.1:8080
# make test   set up everything and run the tests
# The rest: setup · check · test-clients · test-ui · test-gpu · test-kernels · bench · clean
# ENGINES=all installs the paged engine without a GPU too

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
STAMP := .venv/.complete$(if $(filter all,$(ENGINES)),-all)
BIN := .venv/bin

.PHONY: run test test-clients test-ui test-gpu test-kernels check setup bench clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^# /!q; s/^# //p' Makefile

$(STAMP): pyproject.toml scripts/setup.py
	@test -n "$(PYTHON)" || { echo "swapper needs Python 3.11 or newer: sudo apt install python3 python3-venv"; exit 1; }
	@command -v c++ >/dev/null || { echo "swapper needs a C++ compiler for llama.cpp: sudo apt install build-essential"; exit 1; }
	ENGINES=$(ENGINES) $(PYTHON) scripts/setup.py
	@touch $@

setup: $(STAMP)

run: $(STAMP)
	@SWAPPER_GREET=1 exec $(BIN)/swapper serve $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# All of them, by two processes that take tests from each other as they run out. One: ARGS=-n0
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# Real client packages against real engines. They are many: .venv/bin/pip install -e '.[clients]'.
# Those for JavaScript come by npm, where it is there.
JS := tests/clients/js
JS_STAMP := $(if $(shell command -v npm),$(JS)/node_modules/.package-lock.json)

$(JS)/node_modules/.package-lock.json: $(JS)/package-lock.json
	npm ci --silent --prefix $(JS)

test-clients: $(STAMP) $(JS_STAMP)
	$(BIN)/python -m pytest tests/clients $(ARGS)

# The web page in Chromium: apt install chromium; .venv/bin/pip install -e '.[browser]'
test-ui: $(STAMP)
	$(BIN)/python -m pytest tests/ui $(ARGS)

# The paged engine where there is an NVIDIA GPU; elsewhere the tests are skipped, by name
test-gpu: $(STAMP)
	$(BIN)/python -m pytest tests/gpu $(ARGS)

# Every Triton kernel compiled for every card, none of which need be here: minutes
test-kernels: $(STAMP)
	$(BIN)/python -m pytest -n 2 tests/paged/kernels/every_card.py $(ARGS)

bench: $(STAMP)
	$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
