# Two commands do all the set-up: `make demo` and `make test`. Needs Python 3.11 or newer; installs into .venv alone.
PYTHON ?= python3
BIN := .venv/bin

# The tests start hundreds of processes: none of them has to compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-vllm nightly check lint types contracts format bench bench-ledger bench-peers bench-gateway focus prices schema lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: .venv/ready ## Two tenants, four runs, no key and no network
	@$(BIN)/bursar demo

test: .venv/ready ## All tests, in parallel
	$(BIN)/pytest -q -n auto --dist worksteal

test-vllm: .venv/ready .venv-vllm/models/ready ## A real vLLM on the CPU, with a tiny model (needs Python 3.11, and 3 GB of disk)
	$(BIN)/pytest -q -n 0 --timeout 300 tests/vllm

nightly: .venv/ready ## Ten thousand schedules, as many chaotic calls, two hundred kills at every boundary, half a minute of hammering
	BURSAR_SCHEDULES=nightly BURSAR_KILLS=200 $(BIN)/pytest -q -n auto --dist worksteal --timeout 1800 tests/unit/budget \
		tests/integration/test_ledger_hammer.py tests/integration/test_ledger_processes.py \
		tests/integration/test_gateway_chaos.py tests/acceptance/test_chaotic_calls.py \
		tests/acceptance/test_killed_anywhere.py tests/acceptance/test_run_machine.py

check: lint types contracts test ## Lint, types, import contracts and tests

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy budget memory tools guards agents runtime tests examples benchmarks

contracts: .venv/ready
	$(BIN)/lint-imports

format: .venv/ready ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## Figures in ratios, side by side in one run
	$(BIN)/python -m benchmarks

bench-ledger: .venv/ready ## The ledger by store, clients and tenants, plain and out of slices
	$(BIN)/python -m benchmarks.ledger

focus: .venv/ready ## Show a FOCUS export to the public validator
	$(BIN)/python -m tests.focus

bench-peers: .venv/ready .venv-peers/ready ## Limits and their cost beside LiteLLM's proxy, about ten minutes
	$(BIN)/python -m benchmarks.peers

bench-gateway: .venv/ready .venv-peers/ready ## What a gateway adds to a request, beside LiteLLM's proxy, five minutes
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.gateway --workers

prices: .venv/ready ## Make the price book anew from the pinned litellm
	$(BIN)/python -m bursar.budget.pricing.book --taken $$(date -u +%F)

schema: .venv/ready ## Publish the JSON Schema of bursar.yaml anew
	$(BIN)/python -m bursar.runtime.config > docs/bursar.schema.json

lock: .venv/ready ## Resolve the dependencies anew, with hashes and without addresses
	$(BIN)/uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade -o requirements.lock

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Bursar needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "making .venv (once, about a minute) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv-peers/ready: benchmarks/peers/requirements.txt
	@echo "making .venv-peers (once, about a minute) ..."
	@$(PYTHON) -m venv --clear .venv-peers
	@.venv-peers/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

.venv-vllm/ready: tests/vllm/requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("vLLM for the CPU needs Python 3.11: make test-vllm PYTHON=python3.11")'
	@echo "making .venv-vllm (once, about two minutes) ..."
	@$(PYTHON) -m venv --clear .venv-vllm
	@.venv-vllm/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

.venv-vllm/models/ready: .venv-vllm/ready tests/vllm/tiny_model.py tests/vllm/answers.py
	@echo "making a tiny model (once, a few minutes) ..."
	@.venv-vllm/bin/python -m tests.vllm.tiny_model .venv-vllm/models
	@touch $@

clean: ## Remove everything that was made
	rm -rf .venv .venv-peers .venv-vllm .focus .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
