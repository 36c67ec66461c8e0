# OpenMP threads that spin make a shared machine crawl; passive ones cost nothing.
export OMP_WAIT_POLICY ?= PASSIVE
export KMP_BLOCKTIME ?= 0

PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint docs tables bench build constraints clean

setup: .venv/.ready

# The mark is made last, so that an interrupted set-up is simply taken up again.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "twofold needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@echo "Setting up .venv: a few minutes, once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/twofold demo

test: setup
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/pyright

docs: setup
	$(BIN)/python docs/build.py

# Every cell of the CPU scale, two at a time; docs/tables.md says how long that takes. Killed, it goes on where it was.
tables: setup
	$(BIN)/twofold table all --scale cpu --seeds 3 --jobs 2

bench: setup
	$(BIN)/python benchmarks/throughput.py

build: setup
	$(BIN)/python -m build

constraints: setup
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache
