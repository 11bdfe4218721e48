# `make chat` to talk, `make test` to test, `make check` before a commit. Everything else is a step of these.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# RPC lets other machines lend their GPUs; add e.g. -DGGML_CUDA=ON for an NVIDIA card: make chat CMAKE_ARGS=...
# llamafile's products add up in another order from two rows on: drafts could then change a greedy answer on a CPU.
export CMAKE_ARGS ?= -DGGML_RPC=ON -DGGML_LLAMAFILE=OFF
# GCC 12 drops stores that ggml's AMX kernels live on; the flags keep them, where the compiler knows them.
KEEP_STORES := -fno-tree-dse -fno-dse
export CXXFLAGS += $(shell printf '' | $(CXX) -Werror $(KEEP_STORES) -x c++ -fsyntax-only - 2>/dev/null && echo '$(KEEP_STORES)')

.PHONY: chat serve test check static format clients web screenshots fuzz fuzz-files clean help FORCE
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

chat: $(VENV)/.run ## install, fetch the embedded default model, open the terminal chat
	@$(BIN)/mm35 chat --model smollm2-135m

serve: $(VENV)/.run ## the same model behind an OpenAI-compatible endpoint
	@$(BIN)/mm35 serve --model smollm2-135m

test: $(VENV)/.dev ## the whole test suite
	$(BIN)/python -m pytest

check: $(VENV)/.dev ## format, lint, types, contracts, tests
	$(MAKE) static test

static: $(VENV)/.dev ## what `check` does besides the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

oracle: $(VENV)/.dev $(VENV)-oracle/.ready ## logits against transformers, quants against llama.cpp (torch: 1 GB, minutes)
	GOMP_SPINCOUNT=0 $(BIN)/python -m bench.oracle --python $(VENV)-oracle/bin/python

format: $(VENV)/.dev ## rewrite in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clients: $(VENV)/.clients ## the real clients of five makers against the trained miniature; needs Node 20
	$(BIN)/python -m pytest -m clients tests/e2e/test_clients.py

web: $(VENV)/.dev ## the chat in headless Chromium, answered by the small model; needs Chromium
	$(BIN)/python -m pytest -m web tests/e2e/test_web.py

screenshots: $(VENV)/.dev ## the README's pictures, taken from the app on the small model
	$(BIN)/python -m tests.e2e.screenshots

fuzz: $(VENV)/.dev ## 5,000 requests made from our own OpenAPI page
	$(BIN)/python -m tests.e2e.fuzz_http

fuzz-files: $(VENV)/.dev ## damaged headers and heads of checkpoints and GGUF files, 10 minutes: make fuzz-files SECONDS=60
	$(BIN)/python -m tests.quantize.fuzz_files $(or $(SECONDS),600)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip

# The run installation compiles llama.cpp once (some minutes); pip keeps the result.
$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	@touch $@

# pip keeps one build, whatever the flags. Flags that are asked for, and are not those of the last build, go past it.
ifneq ($(origin CMAKE_ARGS),file)
$(VENV)/.run: $(VENV)/.cmake-args
endif
$(VENV)/.cmake-args: $(VENV)/bin/python FORCE
	@test "$$(cat $@ 2>/dev/null)" = "$$CMAKE_ARGS" || { \
		$(BIN)/python -m pip install --constraint constraints.txt --force-reinstall --no-deps --no-cache-dir \
			--no-binary llama-cpp-python llama-cpp-python && echo "$$CMAKE_ARGS" > $@; }
FORCE:

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

CLIENTS := tests/e2e/clients
$(VENV)/.clients: $(VENV)/.dev $(CLIENTS)/requirements.txt $(CLIENTS)/node/package-lock.json
	$(PYTHON) -m venv $(VENV)/clients
	$(VENV)/clients/bin/python -m pip install --quiet --requirement $(CLIENTS)/requirements.txt
	npm ci --prefix $(CLIENTS)/node
	@touch $@

# What the extra `oracle` lists, without ourselves: the reference side needs no llama.cpp.
$(VENV)-oracle/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oracle
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['oracle'], sep='\n')" > $(VENV)-oracle/requirements.txt
	$(VENV)-oracle/bin/python -m pip install --quiet --requirement $(VENV)-oracle/requirements.txt
	@touch $@

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(CLIENTS)/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
