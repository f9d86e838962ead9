# `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# An empty JUDGED on the command line: no judged pairs.
NO_JUDGED = $(filter-out undefined,$(origin JUDGED))
CONFIG ?= $(if $(and $(NO_JUDGED),$(if $(JUDGED),,yes)),jobs/demo_no_judged.toml,jobs/demo.toml)
ARGS ?=
# Processes that run tests; each may start a Ray of its own.
WORKERS ?= 2

# Python keeps the modules that it compiled, whatever the shell says: Ray's workers import them again
# and again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo native test test-fast lint wheel clean

# make demo                                    the made-up shop
# make demo PAIRS=pairs.csv JUDGED=judged.csv  your own files, with columns query, title, label
# make demo JUDGED=                            without judged pairs; PAIRS= of your own too
demo: native
ifdef PAIRS
	$(if $(filter undefined,$(origin JUDGED)),$(error give JUDGED=file too: pairs with a label in 0..1, or JUDGED= for none))
	@$(BIN)/raydistill distill --config $(CONFIG) --set run_dir=runs/own \
		--set pairs.input=$(PAIRS) $(if $(JUDGED),--set judged.input=$(JUDGED)) $(ARGS)
else
	@$(BIN)/raydistill synthesize --output runs/shop --pairs 60000 --judged 4000 --shard-rows 8192
	@$(BIN)/raydistill distill --config $(CONFIG) $(if $(JUDGED),--set judged.input=$(JUDGED)) $(ARGS)
endif

# The scorer's library for this machine: made where it is not in the user's cache.
native: $(READY)
	@$(BIN)/python -m raydistill.serving.native.emit

# A file's tests run in one process: they share what they set up. tests/conftest.py orders the files.
test: native
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# While you edit: no Ray, no S3 server, no transformer, no other native library, nothing that takes
# more than a tenth of a second.
test-fast: native
	$(BIN)/python -m pytest -n $(WORKERS) -m "not ray and not slow and not server" \
		--ignore=tests/teachers --ignore=tests/cluster --ignore=tests/stages \
		--ignore=tests/serving/native $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raydistill needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[distill,serve,demo,dev]"
	@touch $(READY)

# A wheel with the native libraries of this machine, or of MACHINE (x86_64, aarch64), in dist/. It
# needs NumPy alone.
wheel: $(READY)
	rm -rf build/wheel
	mkdir -p build/wheel dist
	cp -r pyproject.toml setup.py README.md LICENSE raydistill build/wheel
	mkdir -p build/wheel/raydistill/serving/native/lib
	$(BIN)/python -m raydistill.serving.native.emit \
		--output build/wheel/raydistill/serving/native/lib --machine $(or $(MACHINE),$(shell uname -m))
	@for file in build/wheel/raydistill/serving/native/lib/*.o; do \
		test -f "$$(echo $$file | sed 's|/raydistill-|/libraydistill-|; s|o$$|so|')" || \
		{ echo "no linker made a library of $$file: install lld or binutils; macOS and Windows have no wheel yet"; exit 1; }; done
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist build/wheel

clean:
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
