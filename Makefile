# make demo   set everything up (.venv, once) and run the talk's experiment: vanilla Linux against LUF
# make test   what .ci/run runs: ruff, mypy, pytest
# make lint   ruff and mypy only
# make bench  the benchmarks/ folder: IPI rate, access loop, fault and reclaim, start-up
# make setup  only the virtual environment
# make clean  remove the environment and all caches (results in runs/ stay)

VENV   := .venv
BIN    := $(VENV)/bin
# PYTHON=/path/to/python, else the Python that .venv was made with, else the first that is new enough. A .venv of another
# version is made anew.
ifndef PYTHON
PYTHON := $(shell for p in $(BIN)/python python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; sys.version_info < (3, 11) or print(sys.version.split()[0])'))
STAMP   := $(VENV)/.installed-$(VERSION)

.PHONY: setup demo test lint bench clean

setup: $(STAMP)
	@:

$(STAMP): setup.cfg pyproject.toml
	@test -n "$(VERSION)" || { echo "luf needs Python 3.11 or newer ($(or $(PYTHON),python3): $$($(or $(PYTHON),python3) --version 2>&1)); set PYTHON=" >&2; exit 2; }
	@test "$$($(BIN)/python -c 'import sys; print(sys.version.split()[0])' 2>/dev/null)" = "$(VERSION)" && test -x $(BIN)/pip || \
		{ echo "setup: making $(VENV) with $(PYTHON), Python $(VERSION)"; $(PYTHON) -m venv --clear $(VENV); }
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
