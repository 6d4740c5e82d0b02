# Each target sets up what it needs. Name another interpreter with PYTHON=python3.12.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: start book test test-quick lint bench clean environment

start: environment
	@$(BIN)/shopfloor start

book: environment
	@$(BIN)/shopfloor book

# The whole suite; its lanes are told in tests/run.py
test: environment
	@$(BIN)/python -m tests.run

test-quick: environment
	@$(BIN)/python -m tests.run --quick

lint: environment
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=labs $(BIN)/lint-imports --no-cache

bench: environment
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .shopfloor _build

environment:
	@$(PYTHON) tools/bootstrap.py
