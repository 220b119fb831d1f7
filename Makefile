# vnet. `make` prints what there is to make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
BPF_SOURCES := $(wildcard vnet/switch/bpf/*.bpf.c)
BPF_OBJECTS := $(BPF_SOURCES:vnet/switch/bpf/%.c=build/bpf/%.o)
CLANG ?= clang
# Tests of pure values share the processors. Of those with ports, namespaces and guests three files run at a time:
# they wait more than they compute, and what they make has the process in its name.
SIDE_BY_SIDE := -n auto tests/unit tests/golden tests/wire
# A distribution takes its time to be made and, emulated, to boot: it has a target of its own.
DISTRO := tests/vm/test_cloud.py
THREE_FILES := -n 3 --dist loadfile tests/bpf tests/net tests/vm --ignore $(DISTRO)
# -g keeps the BTF that the loader needs; v3 is the instruction set that Linux 5.1 and later run.
# asm/types.h lies in the folder of the machine's architecture.
BPF_FLAGS := -O2 -g -Wall -Wextra -Werror -target bpf -mcpu=v3 -I/usr/include/$(shell uname -m)-linux-gnu

.PHONY: help
help: ## Print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-demo bpf image ## Install what is needed, then bring up five VMs, probe, capture, take down (root)
	@tools/demo.sh

.PHONY: test
test: setup bpf image guests lint ## Everything: install, checks, all tests (root, 18 minutes)
	@$(PY) -m pytest $(SIDE_BY_SIDE)
	@$(PY) -m pytest $(THREE_FILES)

.PHONY: check
check: python lint ## Format, lint, types, imports, unit and golden tests (no root, 4 minutes)
	@$(PY) -m pytest -q $(SIDE_BY_SIDE)

.PHONY: lint
lint: python
	@$(PY) -m ruff format --check --output-format concise . >&2 || { echo "make format mends this" >&2; exit 1; }
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary
	@.venv/bin/lint-imports >build/imports.log 2>&1 || { cat build/imports.log >&2; exit 1; }
	@$(PY) tools/docs.py --check

.PHONY: format
format: python ## Put all Python code in its form
	@$(PY) -m ruff format --quiet .
	@$(PY) -m ruff check --quiet --fix --select I .

.PHONY: setup
setup: ## Install all that demo and test need (root if Debian packages are missing)
	@tools/setup.sh test
	@tools/setup.sh conformance

.PHONY: setup-demo
setup-demo:
	@tools/setup.sh demo

.PHONY: python
python:
	@mkdir -p build
	@tools/setup.sh python

.PHONY: bpf
bpf: $(BPF_OBJECTS) ## Compile the eBPF programs into build/bpf/
	@:

build/bpf/%.bpf.o: vnet/switch/bpf/%.bpf.c $(wildcard vnet/switch/bpf/*.h)
	@mkdir -p $(@D)
	@$(CLANG) $(BPF_FLAGS) -c $< -o $@

.PHONY: image
image: ## Make the micro guest from Debian packages
	@tools/setup.sh image

.PHONY: guests
guests: ## Make the guests with other kernels from Debian packages
	@tools/setup.sh guests

.PHONY: kernels
kernels: setup bpf guests ## The switch under the kernels of Debian 12, in emulated guests (root, 2 minutes)
	@$(PY) -m pytest -q tests/vm/test_kernels.py

.PHONY: conformance
conformance: setup bpf ## os-ken's 991 OpenFlow tests against Open vSwitch and vnet (root, 15 minutes)
	@$(PY) -m tests.exams.conformance --results tests/exams/conformance/results
	@$(PY) -m tests.exams.conformance --document

.PHONY: perf
perf: setup-perf bpf ## Measure against the peers (root, under 25 minutes); ROWS=1,2 only these; PERF=--document
	@$(PY) -m tests.perf $(if $(ROWS),--rows $(ROWS)) $(PERF)

.PHONY: setup-perf
setup-perf:
	@tools/setup.sh perf

.PHONY: golden
golden: python ## Rewrite the expected files of tests/golden; review the difference
	@GOLDEN=rewrite $(PY) -m pytest -q tests/golden
	@git --no-pager diff --stat -- tests/golden

.PHONY: budget
budget: setup bpf guests ## Rewrite tests/bpf/budget.toml with what the verifiers say now; review the difference (root)
	@GOLDEN=rewrite $(PY) -m pytest -q tests/bpf/test_budget.py tests/vm/test_kernels.py -k cost_the_verifier
	@git --no-pager diff --stat -- tests/bpf/budget.toml

.PHONY: docs
docs: python ## Rewrite the generated parts of docs/
	@$(PY) tools/docs.py

.PHONY: ct-exam
ct-exam: setup bpf ## Namesakes of Open vSwitch's conntrack, fragment and VLAN tests on both switches (root)
	@$(PY) -m tests.exams.conntrack -o build/ct-exam.json

.PHONY: differential
differential: setup bpf ## Generated rules and packets: twin = eBPF = Open vSwitch (root); SEED=7 PACKETS=1000000
	@$(PY) -m tests.exams.differential --seed $(or $(SEED),1) --packets $(or $(PACKETS),1000000)

.PHONY: small-policies
small-policies: python ## All policies of up to two rules: flows and matrix = language (no root)
	@$(PY) -m tests.exams.policies

.PHONY: distro
distro: setup bpf image ## A Debian made, booted, told by cloud-init, reached by its agent and SSH (root, 5 minutes)
	@tools/setup.sh distro
	@$(PY) -m pytest $(DISTRO)

.PHONY: kills
kills: setup bpf image ## The daemon killed at every step of every operation on VMs (root, an hour); EVERY=5 each fifth; OPS=stop
	@$(PY) -m tests.kills --every $(or $(EVERY),1) $(OPS)

.PHONY: soak
soak: setup bpf image ## 50 VMs up, verified and down, ten times, without a leak (root, 10 minutes); VMS=50 ROUNDS=10
	@$(PY) -m tests.soak --vms $(or $(VMS),50) --rounds $(or $(ROUNDS),10)

.PHONY: fuzz
fuzz: setup bpf ## Wrong bytes, packets and maps for the switch (root, 6 minutes); SEED=7 FOR=60 for each part
	@$(PY) -m tests.exams.fuzz --seed $(or $(SEED),1) --seconds $(or $(FOR),60)

.PHONY: requirements
requirements: ## Pin the newest Python packages, with hashes
	@tools/requirements.sh

.PHONY: clean
clean: ## Remove what was built here; neither Debian packages nor running fabrics
	@rm -rf build .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find vnet tests -name __pycache__ -type d -prune -exec rm -rf {} +
