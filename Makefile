# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# Each sets up what it needs in .venv, from the tested versions in constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
OLDEST := .venv-oldest
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: quickstart small-recipes prepared ablation mini docs test lint types unit test-oldest opensearch clean

quickstart: $(VENV)/.quickstart
	$(BIN)/st-l0 quickstart $(ARGS)

# Every recipe of training_recipes/small; ARGS are overrides such as training.max_steps=10.
small-recipes: $(VENV)/.quickstart
	$(BIN)/st-l0 small-data
	for recipe in training_recipes/small/*.yaml; do echo "$$recipe" && $(BIN)/st-l0 train "$$recipe" $(ARGS) || exit; done

# Both read DATA, a folder with train/, eval/ and idf/, and perhaps further folders of pairs behind it (see
# training_recipes/ablation/prepare.py), and go on where they were stopped. SCALE is gpu or cpu. TEACHER is the second
# dense teacher at SCALE=gpu, and PROMPT what it reads before a query. ARGS are overrides, of the sweep or of both recipes
# of the small model. On a CPU with AMX, preparing and the small model take bfloat16 (BF16=true).
SCALE   ?= gpu
$(if $(filter cpu gpu,$(SCALE)),,$(error SCALE is gpu or cpu, not $(SCALE)))
TEACHER ?= BAAI/bge-small-en-v1.5
PROMPT  ?= Represent this sentence for searching relevant passages: #
BF16    ?= $(if $(filter gpu,$(SCALE)),true,$(shell grep -qs amx_bf16 /proc/cpuinfo && echo true || echo false))
PREPARE  = $(BIN)/python training_recipes/ablation/prepare.py $(DATA) $(if $(filter true,$(BF16)),--bf16) \
           $(if $(filter cpu,$(SCALE)),--pairs-per-source 3000 --mlm-steps 120,\
           --dense-teacher $(TEACHER) --query-prompt '$(PROMPT)' --sentence-queries 150000)
MINI     = runs/mini/$(if $(filter cpu,$(SCALE)),cpu_long,gpu)

ablation: prepared
	$(BIN)/st-l0 sweep training_recipes/ablation/sweeps/$(SCALE).yaml $(ARGS) --report training_recipes/ablation/results

mini: $(MINI)/model/modules.json
	$(BIN)/st-l0 export $(MINI)/model --output $(MINI)/st-l0-mini --max-seq-length 256
	$(BIN)/st-l0 evaluate $(MINI)/st-l0-mini $$(printf -- '--data %s ' runs/ablation/eval/*) --output $(MINI)/evaluation.json
	$(BIN)/st-l0 export $(MINI)/model --output $(MINI)/st-l0-mini --max-seq-length 256 \
	    --card model_cards/st-l0-mini.yaml --evaluation $(MINI)/evaluation.json

runs/mini/%/model/modules.json: training_recipes/mini/%.yaml | prepared
	@! test -e $@ || { echo 'runs/mini/$* is older than what it is made from: remove it to train anew' >&2; exit 2; }
	$(BIN)/st-l0 train $< training.bf16=$(BF16) $(ARGS) $$(ls -d runs/mini/$*/checkpoints/checkpoint-* > /dev/null 2>&1 && echo --resume)

runs/mini/cpu_long/model/modules.json: runs/mini/cpu/model/modules.json

prepared: $(VENV)/.quickstart
	$(PREPARE)

# Warnings are errors. The pages lie in docs/_build/html.
docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# How many processes: conftest.py.
PARALLEL := -n auto --dist loadgroup

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks training_recipes docs
	$(BIN)/ruff format --check src tests benchmarks training_recipes docs

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL)

# The unit tests on the oldest versions that pyproject.toml admits; run it when a lower bound or stock's names move.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest $(PARALLEL)

# A real OpenSearch on loopback until Ctrl-C, for trying things out; the tests start their own. Needs Maven and a
# JDK of version 21 or later. ARGS such as --port 9201 --nodes 3.
opensearch:
	$(PYTHON) tests/opensearch_server.py $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change of the sources needs no new installation.
$(VENV)/.quickstart: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[eval,quickstart,report]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev,eval,aws,onnx,peft,quickstart,report]'
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[demo,eval,onnx,opensearch,peft,quickstart,report]' pytest pytest-xdist
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) runs build dist docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache
