# Everything runs from a fresh clone: a target installs and generates what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
GENERATED := $(VENV)/.generated
PROTOS := $(shell find protos -name '*.proto')
# The second folder has google/type/money.proto, from googleapis-common-protos.
PROTOC = $(PY) -m grpc_tools.protoc -Iprotos -I"$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
IMAGE := $(VENV)/protos.binpb
RIVALS := .venv-bench
WORKERS := 3

.DEFAULT_GOAL := help
.PHONY: help demo run audit test check bench profile simulate chaos soak lint format proto proto-release lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(GENERATED) ## From nothing: start everything, run real orders through both modes, stop
	@$(PY) -m stack demo

run: $(GENERATED) ## Start everything and stay up, with grpcurl commands to copy
	@$(PY) -m stack run

audit: $(GENERATED) ## Compare logs, streams, views, credit and sagas (ARGS="--watch", "--wait 30")
	@$(PY) -m proof.auditor $(ARGS)

# More workers than processors: half of the tests wait most of the time.
test: $(GENERATED) ## Run all tests, against real servers of their own
	@$(BIN)/pytest -n $(WORKERS) --durations=10 --cov --cov-report=term:skip-covered

check: lint ## Lint, and run the tests that need no servers: what to do before every commit
	@$(BIN)/pytest -n 2 -q -m fast

bench: $(GENERATED) $(RIVALS)/.installed ## Measure all into docs/bench; QUICK=1: one short round, not kept; SIZES=1: cost against size (MILLION=1: up to a million orders)
	@$(PY) -m proof.bench $(if $(QUICK),--quick) $(if $(SIZES),--sizes) $(if $(MILLION),--sizes --million)

profile: $(GENERATED) $(RIVALS)/.installed ## Where the microseconds of a saga go, by function and statement, into docs/bench; QUICK=1: not kept
	@$(PY) -m proof.bench.profile $(if $(QUICK),--quick)

chaos: $(GENERATED) ## Break a shop in every known way, under load; ARGS="--seed 7 --only kill-each"
	@$(PY) -m proof.chaos $(ARGS)

soak: $(GENERATED) ## Half an hour of load, and what grows meanwhile; MINUTES=5 for less
	@$(PY) -m proof.chaos.soak $(if $(MINUTES),--minutes $(MINUTES))

simulate: $(GENERATED) ## Simulate faults for SECONDS=30, or one SEED=…; BUG=… plants a bug, to see it found
	@PYTHONHASHSEED=0 $(PY) -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(BUG),--bug $(BUG)) \
		$(if $(SECONDS),--seconds $(SECONDS))

lint: $(GENERATED) $(IMAGE) ## Check style, types, import contracts and protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint $(IMAGE) --config protos/buf.yaml
	$(BIN)/buf breaking $(IMAGE) --against protos/released.txtpb --config protos/buf.yaml

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(GENERATED) ## Generate the Python of protos/ (other targets do it when needed)

proto-release: $(IMAGE) ## Record protos/ as released: from then on they may only grow
	$(BIN)/buf build $(IMAGE) --exclude-source-info --output protos/released.txtpb

# Extras stay in the lock: without them, older pips look for coverage[toml] anew and refuse what has no hash.
lock: $(INSTALLED) ## Pin the newest dependencies, with hashes
	$(BIN)/pip-compile --quiet --all-extras --generate-hashes --no-strip-extras --allow-unsafe --upgrade --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --output-file=requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-strip-extras --allow-unsafe --upgrade --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --output-file=requirements-bench.txt \
		bench/rivals/requirements.in

clean: ## Remove the environment, generated code and embedded servers' data
	rm -rf $(VENV) $(RIVALS) .data shop twinlog/v1 .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

$(INSTALLED): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; call make PYTHON=/path/to/it")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) …"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

# What the bench compares with is no condition of it: where it cannot be installed, the table says so.
$(RIVALS)/.installed: requirements-bench.txt
	@test -x $(RIVALS)/bin/python || $(PYTHON) -m venv $(RIVALS)
	@echo "Installing into $(RIVALS) …"
	@if $(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<; then touch $@; fi

$(GENERATED): $(INSTALLED) $(PROTOS)
	@rm -rf shop twinlog/v1
	@$(PROTOC) \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --mypy_out=quiet:. --grpc_python_out=. --mypy_grpc_out=quiet:. $(PROTOS)
	@touch $@

$(IMAGE): $(INSTALLED) $(PROTOS)
	@$(PROTOC) --include_imports --include_source_info --descriptor_set_out=$@ $(PROTOS)
