# make repro    installs, builds everything that params.yaml asks for, prints the results
# make test     installs what tests need, runs them
# make lint     ruff
# make share DIR=…   uses storage that a group shares: a folder, or an address (docs/shared-storage.md)
#
# VENV=       uses the environment that is active instead of making .venv (nothing in it is pinned then)
# PYTHON=     the interpreter that .venv is made with

VENV ?= .venv
PYTHON ?= python3
export PYTHONUNBUFFERED = 1
# DVC runs `python` as it finds it on the PATH.
export PATH := $(if $(VENV),$(CURDIR)/$(VENV)/bin:)$(PATH)

SOURCES = pyproject.toml setup.py constraints.txt $(wildcard trainers/kernels/*.c)
STAMP = $(if $(VENV),$(VENV),build)/.installed
INSTALL = python -m pip install --quiet --disable-pip-version-check $(if $(VENV),--constraint constraints.txt) --editable

.PHONY: repro test lint share install
.DEFAULT_GOAL := repro

repro: $(STAMP)
	python -m stages.check
	dvc repro $$(python -m stages.share --pull)
	python -m stages.summary

test: $(STAMP)-dev
	python -m pytest

lint: $(STAMP)-dev
	ruff check .
	ruff format --check .

share: $(STAMP)
	python -m stages.share $(DIR)

install: $(STAMP)

$(STAMP): $(SOURCES)
	$(if $(VENV),test -d $(VENV) || $(PYTHON) -m venv $(VENV))
	$(INSTALL) .
	mkdir -p $(@D) && touch $@

$(STAMP)-dev: $(STAMP)
	$(INSTALL) ".[dev,vqgan,ssh,s3]"
	touch $@
