# make repro    installs, builds everything that params.yaml asks for, prints the results
# make test     installs what tests need, runs them
# make lint     ruff, mypy
# make install  only installs
# make verify   compares all that DVC keeps with its checksums, sets aside what is damaged
# make import NAME=… TRIPLES=…   a graph of your own (docs/your-own-graph.md); VALID=, TEST=, TEXTS=, PICTURES=, FEATURES=
#             FROM=WN18RR (or FB15K-237, …) instead, and any other option of python -m stages.import_graph as OPTIONS="…"
# make ask    opens a page on this machine that asks the trained runs of a graph (docs/asking.md); GRAPH=, MODELS=, PORT=
# make study NAME=… GRAPH=… MODEL=…   one experiment: table, figure, words (docs/studies.md); SEEDS=, EPOCHS= on wish
# make benchmark   fills benchmarks/results/ as far as MINUTES= (60) go, writes docs/results.md
# make bench-quick   has a step become slower on this machine, by more than the noise? Two minutes
# make tune GRAPH=… MODEL=…   searches settings on dev for MINUTES= (30); trials: benchmarks/results/tuning/
# make card RUN=…   a model card of a trained run, in the form of the Hugging Face hub, in the run's folder
# make docs   builds the documentation's site in build/site, its links checked
# make share DIR=…   uses storage that a group shares: a folder, or an address (docs/shared-storage.md)
# make help     prints this; python -m stages lists the stages and the commands beside them
#
# VENV=       uses the environment that is active instead of making .venv (nothing in it is pinned then)
# JOBS=       tests that run at once (2)
# PYTHON=     the interpreter that .venv is made with

VENV ?= .venv
PYTHON ?= python3
JOBS ?= 2
export PYTHONUNBUFFERED = 1
# DVC runs `python` as it finds it on the PATH.
export PATH := $(if $(VENV),$(CURDIR)/$(VENV)/bin:)$(PATH)

SOURCES = pyproject.toml setup.py constraints.txt $(wildcard trainers/kernels/*.c)
STAMP = $(if $(VENV),$(VENV),build)/.installed
INSTALL = python -m pip install --quiet --disable-pip-version-check $(if $(VENV),--constraint constraints.txt) --editable

# An environment that others use too must not change hands in silence.
NOTICE = $(if $(VENV),,@python -m stages.ops.environment)

.PHONY: repro test lint install verify import ask study benchmark bench-quick tune share card docs help
.DEFAULT_GOAL := repro

repro: $(STAMP)
	python -m stages.check
	python -m stages.ops.unlock
	python -m stages.ops.repro
	python -m stages.ops.summary

test: $(STAMP)-dev
	OMP_NUM_THREADS=1 python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(STAMP)-dev
	ruff check .
	ruff format --check .
	mypy

verify: $(STAMP)
	python -m stages.ops.verify

import: $(STAMP)
	python -m stages.import_graph $(if $(NAME),--name "$(NAME)") $(if $(TRIPLES),--triples $(TRIPLES)) \
		$(if $(FROM),--from "$(FROM)") $(if $(VALID),--valid $(VALID)) \
		$(if $(TEST),--test $(TEST)) $(if $(TEXTS),--texts "$(TEXTS)") $(if $(PICTURES),--pictures "$(PICTURES)") \
		$(if $(FEATURES),--features "$(FEATURES)") $(OPTIONS)

ask: $(STAMP)-ask
	python -m stages.ask $(if $(GRAPH),--graph "$(GRAPH)") $(if $(MODELS),--models $(MODELS)) $(if $(PORT),--port $(PORT))

study: $(STAMP)
	python -m stages.studies --name "$(NAME)" --graph "$(GRAPH)" --model "$(MODEL)" \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(EPOCHS),--epochs $(EPOCHS))

benchmark: $(STAMP)
	python -m benchmarks.benchmark --minutes $(or $(MINUTES),60)

bench-quick: $(STAMP)
	python -m benchmarks.quick

tune: $(STAMP)-tune
	python -m benchmarks.tune --graph "$(GRAPH)" --model "$(MODEL)" --minutes $(or $(MINUTES),30)

share: $(STAMP)
	python -m stages.ops.share $(DIR)

card: $(STAMP)
	python -m stages.ops.card "$(RUN)"

docs: $(STAMP)-docs
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet --site-dir build/site

install: $(STAMP)

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

$(STAMP): $(SOURCES)
	$(if $(VENV),test -d $(VENV) || $(PYTHON) -m venv $(VENV))
	$(NOTICE)
	$(INSTALL) .
	mkdir -p $(@D) && touch $@

$(STAMP)-dev: $(STAMP)
	$(NOTICE)
	$(INSTALL) ".[dev,docs,tensorboard,ssh,s3]"
	touch $@

$(STAMP)-ask: $(STAMP)
	$(NOTICE)
	$(INSTALL) ".[ask]"
	touch $@

$(STAMP)-tune: $(STAMP)
	$(NOTICE)
	$(INSTALL) ".[tune]"
	touch $@

$(STAMP)-docs: $(STAMP)
	$(NOTICE)
	$(INSTALL) ".[docs]"
	touch $@
