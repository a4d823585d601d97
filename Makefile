# Plain python3 (3.11 or newer) and make are all that is needed; the rest is installed into .venv.
#
#   make demo ARGS="--help"           arguments for the demo, for pytest, for the benchmarks
#   make test WORKERS=4               how many processes share the tests; by default three for two processors, two in test-all
#   make demo BASE_PYTHON=python3.13  another Python, if python3 is older than 3.11

BASE_PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
DOCS_VENV ?= .venv-docs
PYTHON = $(VENV)/bin/python
COMPOSE = docker compose --file docker/docker-compose.yaml
DISTRIBUTIONS = jobu-db-core jobu-db-sqlite jobu-db-postgres jobu-db-mysql
ARGS ?=
WORKERS ?=
export WORKERS

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-all test-clusters lint pyright bench bench-check mutants build docs tables up down clean

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 12

venv: $(VENV)/.made  ## Make the virtual environment: the distributions, editable, and the tools
	@:

$(VENV)/.made: pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml) .ci/make_venv.py
	@$(BASE_PYTHON) .ci/make_venv.py $(VENV) $(OPTIONS)
	@touch $@

demo: venv  ## Run the demo on SQLite, from nothing
	@$(PYTHON) jobu-db-core/examples/jobu/main.py $(ARGS)

# What starts programs of its own takes longer than all the rest: `make test-all` has it.
PROGRAMS := benchmarks cli conformance demo servers third_party third_party_duckdb test_code_blocks.py

# A third of the time is waiting: three processes keep two processors busy.
test: venv  ## Test the core and SQLite, without servers and programs: about a minute
	@$(PYTHON) -m pytest -n $(or $(WORKERS),$$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 ))) --dist loadgroup jobu-db-core/tests jobu-db-sqlite/tests -m "not servers and not wheels" $(PROGRAMS:%=--ignore=jobu-db-core/tests/%) $(ARGS)

test-all: venv  ## Test everything, on real servers, and on every Python from 3.11 on this machine
	@$(PYTHON) .ci/test_all.py $(ARGS)

test-clusters: venv  ## Test failovers on clusters of real servers; CLUSTERS=short takes two minutes
	@JOBU_TEST_CLUSTERS=$(or $(CLUSTERS),all) $(PYTHON) -m pytest -n 0 -rs jobu-db-core/tests/clusters $(ARGS)

lint: venv  ## Check style, types and which module may import which
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@for folder in $(DISTRIBUTIONS:%=%/tests) examples; do $(PYTHON) -m mypy $$folder || exit 1; done
	@$(PYTHON) -m pytest -q jobu-db-core/tests/test_layering.py

pyright: venv  ## Check with pyright, too, what programs see of the types; npm brings it
	@npx --yes pyright@1.1.414 --pythonpath $(PYTHON) $(ARGS)

bench: $(BENCH_VENV)/.made  ## Measure speed beside the bare drivers, their pools and other libraries
	@$(BENCH_VENV)/bin/python jobu-db-core/benchmarks/main.py $(ARGS)

bench-check: $(BENCH_VENV)/.made  ## Fail if a ratio of the benchmarks has become worse
	@$(BENCH_VENV)/bin/python jobu-db-core/benchmarks/check.py $(ARGS)

$(BENCH_VENV)/.made: jobu-db-core/benchmarks/requirements.txt $(DISTRIBUTIONS:%=%/pyproject.toml) .ci/make_venv.py
	@$(BASE_PYTHON) .ci/make_venv.py $(BENCH_VENV) --benchmarks
	@touch $@

mutants: venv  ## Seed bugs into the pool and a backend, and say which test caught each
	@$(PYTHON) jobu-db-core/tests/mutants/run.py $(ARGS)

build: venv  ## Build all four distributions into dist/, as a release has them, and check them
	@rm -rf dist
	@for name in $(DISTRIBUTIONS); do $(PYTHON) -m build --outdir dist $$name || exit 1; done
	@$(PYTHON) -m twine check --strict dist/*

docs: $(DOCS_VENV)/.made  ## Build the documentation into site/, and fail at a link that leads nowhere
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet --clean $(ARGS)
	@echo "site/index.html"

$(DOCS_VENV)/.made: pyproject.toml .ci/make_venv.py
	@$(BASE_PYTHON) .ci/make_venv.py $(DOCS_VENV) --docs
	@touch $@

tables: venv  ## Write the tables of settings into the READMEs, from the models
	@$(PYTHON) .ci/settings_tables.py

up:  ## Start PostgreSQL and MySQL in containers and wait until they are ready
	$(COMPOSE) up --detach --wait

down:  ## Stop the containers; VOLUMES=1 also deletes their data
	$(COMPOSE) down $(if $(filter 1,$(VOLUMES)),--volumes)

clean:  ## Delete what can be made again
	rm -rf .venv .venv-* dist site .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
