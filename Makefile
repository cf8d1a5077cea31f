# `make help` lists the targets. Everything happens in .venv, made on first use.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

PYTHON ?= python3
METHOD ?= rde
GOLDEN_DIR ?= tests/golden/data
export ROWS ?=
TESTS ?= tests/unit tests/golden tests/end_to_end
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

# $(call options,SEEDS JOBS) is --seeds "$(SEEDS)" --jobs "$(JOBS)", without those that are empty.
options = $(foreach name,$(1),$(if $($(name)),--$(shell tr A-Z a-z <<< $(name)) "$($(name))"))
flags = $(foreach name,$(1),$(if $(filter-out 0,$($(name))),--$(shell tr A-Z a-z <<< $(name))))

# make takes every name=value: one that nothing here reads would be without effect.
READ := $(shell grep -oE '[A-Z][A-Z_]+' $(firstword $(MAKEFILE_LIST)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
upper = $(shell tr a-z A-Z <<< '$(1)')
$(foreach name,$(filter-out $(READ),$(GIVEN)),$(error $(name)=$($(name)) is nothing that make reads. Write \
  $(if $(filter $(call upper,$(name)),$(READ)),$(call upper,$(name))=$($(name)),ARGS="$(name)=$($(name))")))

BIN := .venv/bin
UV ?= $(shell command -v uv)
# What is installed: all that training needs, the tools of development, those of the site.
RUN := .venv/.installed
DEV := .venv/.installed-dev
# An environment beside it, of the lowest versions.
LOWEST := .venv-lowest
DOCS := .venv/.installed-docs
# One thread per test process: two processes with two threads each are slower on two cores.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

help:  ## list the targets
	@echo "make <target>; Python is PYTHON=$(PYTHON)"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | column -t -s @ 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1: \2/p' $(MAKEFILE_LIST)
	@echo
	@echo '  make train METHOD=rde'
	@echo '  make train METHOD=rde DATA=cuhk_pedes ARGS="data.root=/datasets data.noise_rate=0.5"'
	@echo '  make golden GOLDEN_METHODS=rde GOLDEN_DIR=folder'

setup: $(DEV)  ## create .venv and install everything, with uv where it is installed
	@echo "done: try make train METHOD=$(METHOD)"

$(RUN): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" UV="$(UV)" tools/install.sh .
	@touch $@

$(DEV): $(RUN)
	@PYTHON="$(PYTHON)" UV="$(UV)" tools/install.sh ".[dev]"
	@touch $@

$(DOCS): $(RUN)
	@PYTHON="$(PYTHON)" UV="$(UV)" tools/install.sh ".[docs]"
	@touch $@

train: $(RUN)  ## train METHOD on DATA (default: generated people), with ARGS="key=value ..."
	@CROSSWALK_MAKE="make train METHOD=$(METHOD)$(if $(DATA), DATA=$(DATA))" \
	  $(BIN)/crosswalk train method=$(METHOD) $(if $(DATA),data=$(DATA)) $(ARGS)

pretrain: $(RUN)  ## make the weights that the small networks of the synthetic runs start from
	@rm -rf runs/rde-synthetic_pairs-pretrain
	@$(BIN)/crosswalk train experiment=rde/pretrain_tiny name=pretrain logger=csv
	@$(BIN)/crosswalk export-weights runs/rde-synthetic_pairs-pretrain --which last --part clip --half \
	  src/crosswalk/assets/tiny_clip.safetensors
	@rm -rf runs/cmmt-synthetic_pairs-pretrain*
	@$(BIN)/crosswalk train experiment=cmmt/pretrain_tiny name=pretrain logger=csv
	@$(BIN)/crosswalk export-weights runs/cmmt-synthetic_pairs-pretrain --which last --part image --half \
	  src/crosswalk/assets/tiny_resnet.safetensors
	@$(BIN)/crosswalk train experiment=cmmt/pretrain_tiny name=pretrain-clip logger=csv \
	  encoder=clip_resnet_tiny \
	  encoder.image_head._target_=crosswalk.encoders.heads.normed_projection
	@$(BIN)/crosswalk export-weights runs/cmmt-synthetic_pairs-pretrain-clip --which last \
	  --part image --half src/crosswalk/assets/tiny_clip_resnet.safetensors

models: $(RUN)  ## train the tiny models that the package brings along, tiny:<method>
	@for method in $(filter-out _%,$(notdir $(basename $(wildcard configs/method/*.yaml)))); do \
	  rm -rf runs/$$method-*-tiny src/crosswalk/assets/models/$$method; \
	  $(BIN)/crosswalk train method=$$method name=tiny logger=csv; \
	  $(BIN)/crosswalk export runs/$$method-*-tiny --half --out src/crosswalk/assets/models/$$method; \
	done

pictures: $(DEV)  ## draw the picture of the README again, and take those of the search page
	@$(BIN)/python docs/tools/pictures.py
	@$(BIN)/python docs/tools/screenshots.py
	@$(BIN)/python docs/tools/step_figures.py

notebooks: $(DEV)  ## execute the notebooks of examples/ and keep their outputs
	@$(BIN)/python docs/tools/notebooks.py

# Material for MkDocs advertises its successor otherwise, which --strict takes for a fault.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

docs: $(DOCS)  ## build the documentation site, build/site/index.html, with warnings as errors
	@$(MKDOCS) build --strict --quiet
	@echo "Open build/site/index.html"

docs-serve: $(DOCS)  ## show the documentation site on this machine
	@$(MKDOCS) serve

ablation: $(RUN)  ## run TABLE=experiments/<method>/<table>.yaml, with ROWS SEEDS DATA JOBS DEVICES SAVE
	@test -n "$(TABLE)" || { echo 'usage: make ablation TABLE=experiments/<method>/<table>.yaml' \
	  '[ROWS="a;b"] [SEEDS=1,2,3] [DATA=synthetic_pairs] [JOBS=2] [DEVICES=0,1] [SAVE=1] [ARGS=...]' >&2; exit 2; }
	@rows=(); IFS=';' read -ra names <<< "$$ROWS;"; for name in "$${names[@]}"; do test -z "$$name" || rows+=(--row "$${name# }"); done; \
	$(BIN)/crosswalk ablate "$(TABLE)" $${rows[@]+"$${rows[@]}"} \
	  $(call options,SEEDS DATA JOBS DEVICES) $(call flags,SAVE) $(ARGS)

tables: $(DEV)  ## write the kept results of experiments/ and benchmarks/ into the documents
	@$(BIN)/python docs/tools/readme_tables.py
	@$(BIN)/python docs/tools/benchmark_tables.py

sweep: $(RUN)  ## search hyper-parameters by SWEEP=<method>; LOCAL=1 needs no W&B; AGENTS, DEVICES, TRIALS
	@test -n "$(SWEEP)" || { echo "usage: make sweep SWEEP=rde [LOCAL=1] [AGENTS=4] [DEVICES=0,1] [TRIALS=20] [ARGS=...]" >&2; exit 2; }
	@$(BIN)/crosswalk sweep "$(SWEEP)" $(call flags,LOCAL) $(call options,AGENTS DEVICES TRIALS) $(ARGS)

test: lint types  ## all checks: lint, types, tests and doctests
	@$(PYTEST)

test-fast: $(DEV)  ## the tests that changed files need most, or FILES="src/crosswalk/files.py ..."
	@$(PYTEST) -m "not slow" $$($(BIN)/python docs/tools/changed_tests.py $(FILES))

test-ddp: $(DEV)  ## only the tests with several processes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ddp

test-lowest: $(LOWEST)/.installed  ## unit, golden and end-to-end tests, or TESTS, on the lowest versions of pyproject.toml
	@$(subst $(BIN),$(LOWEST)/bin,$(PYTEST)) $(TESTS)

# uv resolves downwards, which pip cannot; the index has it for those who have not.
$(LOWEST)/.installed: pyproject.toml
	@rm -rf $(LOWEST) && $(PYTHON) -m venv $(LOWEST)
	@$(if $(UV),,$(LOWEST)/bin/python -m pip install --quiet uv)
	@$(or $(UV),$(LOWEST)/bin/uv) pip install --python $(LOWEST)/bin/python --resolution lowest-direct --editable ".[dev]"
	@touch $@

golden: $(DEV)  ## compare with the recorded outputs of the published implementations
	@$(BIN)/python tests/golden/run.py --dir "$(GOLDEN_DIR)" --methods "$(GOLDEN_METHODS)"

bench-peers: $(DEV)  ## rank beside fast-reid's and torchreid's evaluators, fetched into .peers/
	@$(BIN)/python benchmarks/peers.py $(ARGS)

bench-gpu: $(DEV)  ## measure one large GPU in at most 12 minutes, keep benchmarks/results/gpu.json
	@$(BIN)/python benchmarks/gpu.py $(ARGS)

bench: $(DEV)  ## measure against straightforward baselines, keep benchmarks/results/bench.json
	@$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(DEV)  ## ruff: rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }

types: $(DEV)  ## mypy --strict on src and docs/tools
	@$(BIN)/mypy

format: $(DEV)  ## rewrite files as ruff wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: test golden  ## test and golden

dist: $(DEV)  ## build the wheel and the source archive into dist/
	@$(BIN)/python -m hatchling build

clean:  ## remove .venv and caches; runs stay
	rm -rf .venv .venv-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
