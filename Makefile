# make demo   set everything up (.venv, once) and run the talk's experiment: vanilla Linux against LUF
# make test   what .ci/run runs: ruff, mypy, pytest
# make lint   ruff and mypy only
# make bench  the benchmarks/ folder: IPI rate, access loop, fault and reclaim, start-up
# make setup  only the virtual environment
# make clean  remove the environment and all caches (results in runs/ stay)

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first Python that is new enough; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: setup demo test lint bench clean

setup: $(STAMP)
	@:

$(STAMP): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "luf needs Python 3.11 or newer (python3 --version: $$(python3 --version 2>&1)); set PYTHON=" >&2; exit 2; }
	@test -x $(BIN)/pip || { echo "setup: making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "setup: installing luf-emulator and its libraries into $(VENV) (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: setup
	@echo "demo: luf compare (the first run compiles the engine, about a minute; later ones take it from the cache)"
	@$(BIN)/luf compare

test:
	@.ci/run

lint:
	@.ci/run lint

bench: setup
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .ruff_cache .mypy_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
