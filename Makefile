# Two commands do everything: `make quickstart` and `make test`. Both install into .venv first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
TASK_DIR ?= runs/helpdesk
# Tests at the same time, each with one thread of torch; a file's tests stay together, since they share what they made.
TEST_WORKERS ?= 2

.PHONY: quickstart serve test lint types contracts clean

quickstart: $(VENV)/.installed
	$(BIN)/retrikt quickstart

serve: $(VENV)/.installed
	$(BIN)/retrikt serve --task-dir $(TASK_DIR) --port $(PORT)

test: lint types contracts
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_WORKERS) --dist loadscope

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

contracts: $(VENV)/.installed
	$(BIN)/lint-imports

# torch comes first and by version, so that nothing that depends on it picks another build.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
