# Every target sets up what it needs; `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-light test-live test-fast contract bench bench-core bench-service bench-page bench-study bench-loop bench-scheduling storm isolation-test deploy-test docs fmt lint types check migrate revision api worker serve up down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[service,dev]'
	@touch $@

# mypy and import-linter see the rooms under their import names through these links.
IMPORT_NAMES := $(foreach room,services workers api sdk,build/src/xsam/$(room))

build/src/xsam/sdk:
	@mkdir -p $(@D)
	@ln -sfn ../../../workers/sdk $@

build/src/xsam/%:
	@mkdir -p $(@D)
	@ln -sfn ../../../$* $@

setup: $(READY) ## virtual environment with everything in it

demo: $(READY) ## start the service, train SGD, SAM and XSAM through it, show the result
	$(BIN)/xsam demo

LIGHT_LOG := build/test-light.log

test: $(READY) ## all tests that this machine can run: those that start Ray one by one, and the light ones with what they leave
	@mkdir -p build
	@nice -n 19 $(MAKE) --no-print-directory test-light > $(LIGHT_LOG) 2>&1 & light=$$!; \
	trap 'kill $$light' INT TERM; \
	RAY_worker_niceness=0 $(MAKE) --no-print-directory test-live; live=$$?; \
	wait $$light; light=$$?; cat $(LIGHT_LOG); \
	echo "tests that start Ray: exit status $$live; light tests: exit status $$light"; exit $$((live || light))

test-live: $(READY) ## the tests that start Ray or the whole service, one by one
	$(BIN)/python -m pytest -m "ray or e2e"

test-light: $(READY) ## the tests that do not, side by side
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not ray and not e2e"

test-fast: $(READY) ## the tests that take seconds: no Ray, no long runs
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal -m "not ray and not slow and not e2e"

bench: bench-service ## figures of the whole service, against baselines in the same run

bench-core: $(READY) ## figures of xsam_core
	$(BIN)/python -m tests.bench.core

bench-service: $(READY) ## time to the first step, submit latency
	$(BIN)/python -m tests.bench.service

bench-page: $(READY) ## figures of the page: bytes, first paint, the list of 10,000 jobs, a change, a long log (needs chromium)
	$(BIN)/python -m tests.bench.page

bench-study: $(READY) ## figures of studies
	$(BIN)/python -m tests.bench.study

bench-loop: $(READY) ## the training loop against a bare one, image folders against torchvision's
	$(BIN)/python -m tests.bench.loop
	$(BIN)/python -m tests.bench.image_folder

bench-scheduling: $(READY) ## the scheduling policy on a trace of 10,000 jobs
	$(BIN)/python -m tests.bench.scheduling

storm: $(READY) ## strike at a running service for ten minutes and count what is lost (needs PostgreSQL's programs)
	$(BIN)/python -m tests.e2e.storm

isolation-test: $(READY) ## attack another team from inside a rank, with users of teams and without; needs root
	XSAM_TEST_ISOLATION=1 $(BIN)/python -m pytest tests/e2e/test_isolated_teams.py

deploy-test: $(READY) ## build the images, run the compose file, kill every container, remove all of it (needs docker or podman)
	$(BIN)/python -m tests.deploy.containers

docs: $(READY) ## run the examples in docstrings and in the READMEs
	$(BIN)/python -m pytest tests/xsam_core -k "doctest or readme"

contract: $(READY) ## the OpenAPI document against the server, with ten times as many requests made up as `make test` has
	XSAM_TEST_EXAMPLES_TIMES=10 $(BIN)/python -m pytest --timeout 3600 tests/api/test_contract.py tests/api/test_contract_with_tokens.py

fmt: $(READY) ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY) $(IMPORT_NAMES) ## style, imports between rooms, spelling, the compose files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYTHONPATH=build/src $(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/docker/compose.gpu.yml

types: $(READY) $(IMPORT_NAMES) ## static types
	$(BIN)/mypy

check: $(READY) ## all that CI runs
	$(MAKE) --jobs 2 --output-sync=line --keep-going lint types
	$(MAKE) test

migrate: $(READY) ## bring the configured database to the current schema
	$(BIN)/xsam migrate

revision: $(READY) ## write a migration: make revision m="what changes"
	$(BIN)/python -m xsam.services.tables "$(m)"

serve: $(READY) ## API and dispatcher on this machine
	$(BIN)/xsam serve

api: $(READY) ## the API alone
	$(BIN)/xsam serve --no-dispatcher

worker: $(READY) ## a dispatcher alone
	$(BIN)/python -m xsam.workers

up: ## the team set-up in containers
	docker compose up --build --detach

down: ## stop the containers, keep the data
	docker compose down

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
