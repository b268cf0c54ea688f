# Every target brings .venv to the locked state first; that takes milliseconds when it is there already.
PYTHON ?= python3
INSTALL = $(or $(shell command -v $(PYTHON)),$(error There is no $(PYTHON) here: install Python 3.11 or newer, or name \
	another one, as in: make run PYTHON=python3.12)) pulsewatch/install.py
BIN = .venv/bin
RULES = $(wildcard tests/*/test_rules.py tests/*/rules)
COVERAGE = $(BIN)/python -m coverage
# Two parts at a time; what each prints comes in one piece, when it has ended. All are tried, also when one fails.
SIDE_BY_SIDE = $(MAKE) --no-print-directory --jobs=2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync)

.DEFAULT_GOAL := help
.PHONY: run load setup test on-mysql rules check types deployment style bench soak lock clean help

run: ## start the console on http://127.0.0.1:8000 (PORT=8001 for another port); Ctrl-C stops it
	@exec $(INSTALL) base -- -m pulsewatch.launch

load: ## with `make run` up: load on its own web server, until a worker is added, and removed after it
	@exec $(INSTALL) base -- -m bench.load $(ARGS)

setup: ## install everything for development; Debian packages too, as root or with sudo
	@$(INSTALL) base dev -- -m tests.servers install
	@$(INSTALL) base dev mysql

test: setup ## the whole suite on private servers: all on MariaDB, the database's part also on MySQL; every branch of the rules
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(RULES))
	@$(SIDE_BY_SIDE) on-mysql rules

on-mysql:
	$(BIN)/python -m pytest --db=mysql -m engine

rules: # they know no database
	@$(COVERAGE) erase
	$(COVERAGE) run -m pytest --db=sqlite -q $(RULES)
	@$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=100 --include='apps/*/rules.py,apps/*/rules/*'

check: setup ## style, types, import rules, migrations, deployment settings, Dockerfile, YAML, workflows
	@$(SIDE_BY_SIDE) types deployment style

types:
	$(BIN)/mypy

deployment:
	$(BIN)/python -m tests.deploy_check

style:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/yamllint --strict .github docker
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*
	$(BIN)/zizmor --offline --quiet .github/workflows

bench: setup ## speed, each line a ratio measured in one run; ARGS="backups --size 0.1" for a part of it
	$(BIN)/python -m bench $(ARGS)

soak: setup ## keep a console busy for a long while and watch what grows
	$(BIN)/python -m bench.soak

lock: setup ## write requirements/*.txt anew from *.in; newest versions with UPGRADE=--upgrade
	@for name in base mysql dev; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
			$(UPGRADE) requirements/$$name.in --output-file requirements/$$name.txt || exit 1; \
	done

clean: ## remove .venv, build/ and all caches; var/ with the data stays
	rm -rf .venv build .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-7s %s\n' "$$name" "$$what"; done
