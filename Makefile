# `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
CONFIG ?= jobs/demo.toml
ARGS ?=
# Processes that run tests; each may start a Ray of its own.
WORKERS ?= 2

# Python keeps the modules that it compiled, whatever the shell says: Ray's workers import them again
# and again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-fast lint clean

# make demo                                    the made-up shop
# make demo PAIRS=pairs.csv JUDGED=judged.csv  your own files, with columns query, title, label
demo: $(READY)
ifdef PAIRS
	$(if $(JUDGED),,$(error give JUDGED=file too: pairs with a label in 0..1))
	@$(BIN)/raydistill distill --config $(CONFIG) --set run_dir=runs/own \
		--set pairs.input=$(PAIRS) --set judged.input=$(JUDGED) $(ARGS)
else
	@$(BIN)/raydistill synthesize --output runs/shop --pairs 60000 --judged 4000 --shard-rows 8192
	@$(BIN)/raydistill distill --config $(CONFIG) $(ARGS)
endif

# A file's tests run in one process: they share what they set up.
test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# While you edit: no Ray, no S3 server, no transformer, nothing that takes more than a tenth of a
# second.
test-fast: $(READY)
	$(BIN)/python -m pytest -m "not ray and not slow and not server" \
		--ignore=tests/teachers --ignore=tests/cluster --ignore=tests/stages $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raydistill needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[distill,demo,dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
