# Two commands: `make book` builds the site, `make test` runs every test. `make help` lists the rest.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
SITE := _build/html/index.html

.DEFAULT_GOAL := help
.PHONY: help setup book serve lab notebooks figures pictures runtime lint test clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## create .venv and install everything (the other commands do this too)

$(VENV)/ready: pyproject.toml constraints.txt
	@echo "== Setting up $(VENV): the first time downloads about 1 GB and takes a few minutes"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python cannot create virtual environments here: apt-get install python3-venv"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -c constraints.txt -e ".[book,dev]"
	@touch $@

book: setup ## build the site into _build/html, warnings are errors
	$(VENV)/bin/jupyter-book build --all -W -n --keep-going .
	@echo
	@echo "== The book is in $(SITE): open that file in a browser, or run 'make serve'."

serve: setup ## serve the built site on localhost and open a browser
	@test -f $(SITE) || $(MAKE) book
	$(PY) -m tools.serve --port $(PORT)

lab: setup ## open the notebooks in JupyterLab
	$(VENV)/bin/jupyter lab notebooks

notebooks: setup ## run every notebook again and store outputs and widget state
	$(PY) -m tools.notebooks

figures: setup ## rebuild the figures' JavaScript bundles
	$(PY) -m tools.figures

pictures: setup ## draw the README's pictures of stored results again
	$(PY) -m tools.pictures

lint: setup ## style and types
	$(PY) -m ruff check .
	$(PY) -m mypy

test: lint book ## everything: style, types, unit tests, notebooks cell by cell, the built site in a real browser
	@echo "== The package, the figures, the exercises, Colab's environment"
	$(PY) -m pytest -n 2 --dist loadfile --ignore tests/book
	@echo "== Every notebook, cell by cell, and its stored widgets"
	$(PY) -m pytest -c tests/notebooks/nbval.ini --rootdir . notebooks
	@echo "== The built site in a browser"
	$(PY) -m pytest tests/book

clean: ## remove what was built (not .venv)
	rm -rf _build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
