# Two commands to know: `make demo` and `make test`. Each sets up what it needs first.
V := .venv
PY ?= python3
BIN := $(V)/bin
# Threads are pinned: two torch processes that spin on the same cores slow each other down several times.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: help install dev demo test test-faults test-examples check docs format clean

help:
	@echo 'make demo        set up, then train a small GPT on real text (about 4 minutes on 2 cores)'
	@echo 'make test        set up, then run the tests'
	@echo 'make test-faults the long form of the kill, resume and disk tests'
	@echo 'make test-examples  the short form of every example, and the notebooks'
	@echo 'make check       ruff, mypy --strict, import-linter'
	@echo 'make docs        build the documentation, strictly, into site/'
	@echo 'make install     set up only: $(BIN)/trimtab'

$(V)/bin/python:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trimtab needs Python 3.11 or newer; set PY=python3.12, for example")'
	@echo 'making $(V)'
	@$(PY) -m venv $(V) || { rm -rf $(V); $(PY) -m venv --without-pip $(V) && $(PY) -m pip --python $(V)/bin/python install -q pip; }

$(V)/.core: $(V)/bin/python pyproject.toml constraints.txt
	@echo 'installing trimtab and torch (about a minute)'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(V)/.dev: $(V)/.core
	@echo 'installing what the tests need'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(V)/.core

dev: $(V)/.dev

# 75 is an interruption that saved, and said how to go on. The shell must outlive Ctrl-C to hear of it.
demo: install
	@trap : INT; $(BIN)/trimtab demo || [ $$? -eq 75 ]

test: dev
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-faults: dev
	$(TEST_ENV) $(BIN)/python -m pytest tests/faults --deselect tests/faults/test_long.py
	$(TEST_ENV) $(BIN)/python tests/faults/long/run.py

test-examples: dev
	$(TEST_ENV) $(BIN)/python -m pytest tests/examples

check: dev
	$(BIN)/ruff check src tests docs examples
	$(BIN)/ruff format --check src tests docs examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) docs

docs: dev
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict --site-dir site

format: dev
	$(BIN)/ruff check --fix src tests docs examples
	$(BIN)/ruff format src tests docs examples
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(V) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
