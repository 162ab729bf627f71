# Everything runs from a fresh clone: a target installs and generates what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
GENERATED := $(VENV)/.generated
PROTOS := $(shell find protos -name '*.proto')
IMAGE := $(VENV)/protos.binpb
RIVALS := .venv-bench
WORKERS := 5

# Tests start services hundreds of times: without bytecode, each start compiles all of the code again.
unexport PYTHONDONTWRITEBYTECODE

# Debian and Ubuntu ship Python without ensurepip, without which venv makes an environment that has no pip.
define CHECK_PYTHON
import sys
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, this is " + version + "; call make PYTHON=/path/to/it")
import importlib.util
if not importlib.util.find_spec("ensurepip"):
    sys.exit("Python's venv module is incomplete; install it (Debian, Ubuntu: apt install python" + version + "-venv)")
endef
export CHECK_PYTHON

# As python -m, for modules that would answer Ctrl-C with a traceback.
define RUN
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
endef
export RUN

.DEFAULT_GOAL := help
.PHONY: help demo run rebuild audit check lint format test coverage lowest mutants simulate chaos soak bench profile docs screenshots proto proto-release build lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Run it

demo: $(GENERATED) ## From nothing: start everything, run real orders through both modes, stop
	@$(PY) -m stack demo

run: $(GENERATED) ## Start everything and stay up, with grpcurl commands to copy
	@$(PY) -m stack run

rebuild: $(GENERATED) ## Build a view anew beside the live one, and compare them: VIEW=orders (ARGS="--share 50")
	@TWINLOG_ADDRESSES=$${QUERIES_ADDRESS:-127.0.0.1:50054} $(PY) -m twinlog views rebuild $(VIEW) $(ARGS)

audit: $(GENERATED) ## Compare logs, streams, views, credit and sagas (ARGS="--watch", "--wait 30")
	@$(PY) -m proof.auditor $(ARGS)

##@ Work on it

check: lint ## Lint, and run the tests that need no servers: what to do before every commit
	@$(BIN)/pytest -n 3 -q -m fast

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

docs: $(GENERATED) ## Build the documentation into .data/site; a broken link fails
	@$(PY) -m zensical build --strict
	@echo "To read it: $(PY) -m http.server --bind 127.0.0.1 --directory .data/site"

screenshots: $(GENERATED) ## Take pictures of the console's pages with this machine's Chromium, into docs/console
	@$(PY) -m tests.console.screenshots

proto: $(GENERATED) ## Generate the Python of protos/ (other targets do it when needed)

clean: ## Remove the environment, generated code and embedded servers' data
	rm -rf $(VENV) $(RIVALS) .data .cache dist shop twinlog/v1 .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

##@ Prove it

# More workers than processors, since half of the tests wait most of the time; one of them computes all the time.
test: $(GENERATED) ## Run all tests, against real servers of their own
	@$(BIN)/pytest -n $(WORKERS) --durations=10

# Apart from `make test`, because measuring takes a third of the time again.
coverage: $(GENERATED) ## Run all tests, and list the lines that none of them reaches
	@$(BIN)/pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered

lowest: $(GENERATED) ## Run the fast tests with the oldest releases that pyproject.toml allows
	@$(PY) -c "$$RUN" proof.lowest $(ARGS)

mutants: $(GENERATED) ## Change the library in COUNT=100 small ways, one SEED=… of them; the fast tests must notice each
	@$(PY) -c "$$RUN" proof.mutants $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: $(GENERATED) ## Simulate faults for SECONDS=30, or one SEED=…; BUG=… plants a bug, to see it found
	@PYTHONHASHSEED=0 $(PY) -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(BUG),--bug $(BUG)) \
		$(if $(SECONDS),--seconds $(SECONDS))

chaos: $(GENERATED) ## Break a shop in every known way, under load; ARGS="--seed 7 --only kill-each"
	@$(PY) -m proof.chaos $(ARGS)

soak: $(GENERATED) ## Half an hour of load, and what grows meanwhile; MINUTES=5 for less
	@$(PY) -m proof.chaos.soak $(if $(MINUTES),--minutes $(MINUTES))

##@ Measure it

bench: $(GENERATED) $(RIVALS)/.installed ## Measure all into docs/bench; QUICK=1: one short round, not kept; SIZES=1: cost against size (MILLION=1: up to a million orders)
	@$(PY) -m proof.bench $(if $(QUICK),--quick) $(if $(SIZES),--sizes) $(if $(MILLION),--sizes --million)

profile: $(GENERATED) $(RIVALS)/.installed ## Where the microseconds of a saga go, by function and statement, into docs/bench; QUICK=1: not kept
	@$(PY) -m proof.bench.profile $(if $(QUICK),--quick)

##@ Release it

proto-release: $(IMAGE) ## Record protos/ as released: from then on they may only grow
	$(BIN)/buf build $(IMAGE) --exclude-source-info --output protos/released.txtpb

# Extras stay in the lock: without them, older pips look for coverage[toml] anew and refuse what has no hash.
lock: $(INSTALLED) ## Pin the newest dependencies, with hashes
	$(BIN)/pip-compile --quiet --all-extras --generate-hashes --no-strip-extras --allow-unsafe --upgrade --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --output-file=requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --no-strip-extras --allow-unsafe --upgrade --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-header --no-annotate --output-file=requirements-bench.txt \
		proof/bench/rivals/requirements.in

build: $(INSTALLED) ## Build the sdist and the wheel of twinlog into dist/, with the generator that pyproject.toml names
	@rm -rf dist
	@$(PY) -c "$$RUN" build

# An environment without its mark was cut off on the way, at whatever moment: it is begun again from nothing, because
# pip takes a half-unpacked package for an installed one. A newer requirements.txt is installed into what is there.
$(INSTALLED): requirements.txt
	@test -e $@ || { $(PYTHON) -c "$$CHECK_PYTHON" && echo "Making $(VENV) …" && rm -rf $(VENV) && \
		$(PYTHON) -c "$$RUN" venv $(VENV); }
	@rm -f $@
	@echo "Installing into $(VENV) …"
	@$(PY) stack/installing.py $(PY) --require-hashes -r requirements.txt
	@touch $@

# What the bench compares with is no condition of it: where it cannot be installed, the table says so.
$(RIVALS)/.installed: requirements-bench.txt
	@test -e $@ || { rm -rf $(RIVALS) && $(PYTHON) -c "$$RUN" venv $(RIVALS); }
	@rm -f $@
	@echo "Installing into $(RIVALS) …"
	@if $(RIVALS)/bin/python stack/installing.py $(RIVALS)/bin/python --require-hashes -r $<; then touch $@; fi

$(GENERATED): $(INSTALLED) $(PROTOS) protos/generate.py
	@rm -rf shop twinlog/v1
	@$(PY) protos/generate.py --python .
	@touch $@

$(IMAGE): $(INSTALLED) $(PROTOS) protos/generate.py
	@$(PY) protos/generate.py --image $@.part && mv $@.part $@
