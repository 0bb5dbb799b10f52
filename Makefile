# Short targets over one environment, .venv, which every target makes when it is missing or out of date.
# Arguments go through ARGS: make test ARGS="-k settings -x", make demo ARGS=--exit

SHELL = /bin/sh
BIN = .venv/bin
STAMP = .venv/.installed
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# The newest Python that runs and can make environments; being on the PATH is not enough, version managers
# leave names there that only print an error.
FIND_PYTHON = for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	echo $$python; break; fi; done

.DEFAULT_GOAL = help
.PHONY: help install demo up test check bench lock clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: $(STAMP) ## Make .venv with everything a developer needs

demo: $(STAMP) ## Watch planted incidents go from webhook to alert on real servers (ARGS=--exit stops by itself)
	@$(BIN)/billingwatch demo $(ARGS)

up: $(STAMP) ## Run everything for real, with embedded servers where none are named
	@$(BIN)/billingwatch up $(ARGS)

test: $(STAMP) ## Run the test suite, a process a core (ARGS go to pytest)
	@$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## Check format, lint, types and layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP) ## Run the benchmarks
	@$(BIN)/python -m bench $(ARGS)

lock: $(STAMP) ## Compile the lock files again (ARGS=--upgrade takes newer versions)
	@$(UV_COMPILE) pyproject.toml --all-extras --group dev $(ARGS) -o requirements/dev.txt
	@$(UV_COMPILE) pyproject.toml --all-extras -c requirements/dev.txt $(ARGS) -o requirements/run.txt
	@$(UV_COMPILE) --group build -c requirements/dev.txt $(ARGS) -o requirements/build.txt

clean: ## Remove .venv, caches and builds; data in .billingwatch stays
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

# --clear, so that what the lock no longer names is gone; the build tools first, so that what comes as source is
# built with locked ones; the stamp last, so that an interrupted installation starts over.
$(STAMP): pyproject.toml requirements/build.txt requirements/dev.txt
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "BillingWatch needs Python 3.11 or newer with venv and pip (on Debian: python3-venv)." >&2; exit 1; \
	fi; \
	echo "Installing into .venv with $$python"; \
	$$python -m venv --clear .venv
	@$(PIP) --require-hashes -r requirements/build.txt
	@$(PIP) --require-hashes --no-build-isolation -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(STAMP)
