# The environment lives in .venv and is made by the first target that needs it.
# Another interpreter: make PYTHON=/path/to/python3.12 test

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
RUN_DIR ?= runs/quickstart
TEST_JOBS ?= 2
SUITE ?= small

.PHONY: help setup quickstart docs test test-all test-newest catalogue lint format soak bench archive wheel clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

setup: $(READY)  ## Make .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "veldt needs Python 3.11 or newer; found: '$(PYTHON)'." >&2; \
		echo "Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; fi
	@test -x $(BIN)/python || { echo "making $(VENV) (about two minutes, 1.3 GB)"; "$(PYTHON)" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

docs: $(DOCS_READY)  ## The site, in docs/_build/html; a warning is an error, and nothing is fetched
	$(BIN)/python -m sphinx -b html -E -W --keep-going -q docs docs/_build/html
	@echo "wrote docs/_build/html/index.html"

quickstart: $(READY)  ## A real search on digits, a rule exported and trained with, a report
	$(BIN)/python -m veldt search quickstart --run-dir $(RUN_DIR) --resume
	$(BIN)/python -m veldt export $(RUN_DIR) --to optax -o $(RUN_DIR)/rule.py
	$(BIN)/python examples/train_with_rule.py $(RUN_DIR)/rule.py
	$(BIN)/python -m veldt report $(RUN_DIR)

test: $(READY)  ## Lint and types beside the tests that take seconds
	@$(MAKE) --no-print-directory lint > .lint.log 2>&1 & lint=$$!; \
	$(BIN)/pytest -q -n $(TEST_JOBS) --dist worksteal -m 'not slow'; tests=$$?; \
	wait $$lint; linted=$$?; [ $$linted = 0 ] || cat .lint.log; rm -f .lint.log; \
	exit $$((tests | linted))

test-all: lint  ## Everything, the slow tests too, on examples that are new each time
	VELDT_RANDOM_TESTS=1 $(BIN)/pytest -q -n $(TEST_JOBS) --dist worksteal

# One room's: make test-search, test-meta, test-tasks, test-learned_opt, test-veldt, test-docs.
test-%: $(READY)
	@test -d tests/$* || { echo "there is no folder tests/$*" >&2; exit 2; }
	$(BIN)/pytest -q -n $(TEST_JOBS) --dist worksteal -m 'not slow' tests/$*

catalogue: $(READY)  ## What `veldt list` and `--help` print, written down
	$(BIN)/python -c "from veldt import catalogue, cli; catalogue.write(catalogue.make(cli.config_classes()))"

test-newest: $(READY)  ## The language, the rules and the interpreter on this machine's newest Python, in .venv-newest
	TEST_JOBS=$(TEST_JOBS) .ci/test_newest

lint: $(READY)  ## ruff and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy veldt $(wildcard benchmarks/*.py examples/*.py docs/_generate/*.py)

format: $(READY)  ## Let ruff fix and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(READY)  ## All four commands on several hosts, with everything going wrong, for fifteen minutes
	$(BIN)/python benchmarks/soak.py

bench: $(READY)  ## Every number that the docs quote
	@for script in $(filter-out $(addprefix benchmarks/,archive.py discovered.py hollow.py lanes.py ship_weights.py tempting_tasks.py unseen.py untrained.py schedule_%.py),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

archive: $(READY)  ## The baselines' runs on SUITE, which are shipped: hours
	$(BIN)/python benchmarks/archive.py $(SUITE)

wheel: $(READY)  ## dist/veldt-*.whl, for the nodes of a cluster
	@rm -rf build dist  # What an earlier build left would go into the wheel.
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .
	@rm -rf build
	@ls dist/*.whl

clean:  ## Remove caches and build outputs; .venv, .venv-newest and runs/ stay
	rm -rf build dist docs/_build *.egg-info src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache
	find . -path './$(VENV)*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
