# Everything a newcomer or CI types. Each target sets up what it needs; nothing has to be done before.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export TOKENIZERS_PARALLELISM = false

.PHONY: help tutorial lab quick test coverage notebooks book page-test colab lint benchmarks gpu architectures clean

help:
	@echo "make tutorial    run the core lessons on the real default model; results land in output/ (FROM=03 goes on there)"
	@echo "make lab         open the lessons in JupyterLab"
	@echo "make quick       the tests of a change, in under 3 minutes: no real model, nothing slow (TESTS=tests/pruning: of one room)"
	@echo "make coverage    the same, and how much of each module they run"
	@echo "make test        everything CI runs: lint, tests, all lessons, the browser test"
	@echo "make notebooks   regenerate and execute the lessons from notebooks/source/"
	@echo "make book        the lessons and docs as a web site, into book/_build/html/"
	@echo "make page-test   the page that prunes, opened in headless Chromium (needs npm and PyPI)"
	@echo "make colab       lessons 00 to 03 on the Python and the versions that Google Colab has"
	@echo "make lint        ruff, mypy"
	@echo "make benchmarks  time and memory of the BI pass and of trials, side by side, into docs/benchmarks.md"
	@echo "make gpu         what only a CUDA card shows, in 8 minutes at most, into docs/benchmarks.md"
	@echo "make architectures  verify every architecture of transformers, into docs/architectures.md"

# Python 3.13 on other platforms has no CPU build under the plain name: PIP_EXTRA can name another index for torch.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@# one that works is kept: another interpreter written over it would break it
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo "python3-venv is missing: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet $(PIP_EXTRA) -c constraints.txt -e ".[notebooks,eval,quant,test]"
	@touch $(READY)

tutorial: $(READY)
	$(BIN)/python notebooks/tutorial.py $(if $(FROM),--from $(FROM))

# in a container everybody is root, and JupyterLab would refuse
lab: $(READY)
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=notebooks notebooks/00_start_here.ipynb

# two processes with a thread each get more done than one with two, and far more than two with two
RUN_IN_BROWSER := $(if $(shell command -v chromium chromium-browser google-chrome),--ignore=notebooks/03_pruning.ipynb)
SIDE_BY_SIDE := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
QUICK := -m "not real and not slow and not browser" --durations=10 --durations-min=2
# the modules of which less is run, the lowest first
LOW_COVERAGE := $(BIN)/coverage report --sort=cover | awk '/^(Name|---|TOTAL)/ || $$NF + 0 < 90'
TESTS ?= tests
BROWSER_TEST := tests/course/test_browser.py

quick: $(READY)
	$(SIDE_BY_SIDE) $(QUICK) $(TESTS) $(PYTEST_ARGS)

coverage: $(READY)
	$(SIDE_BY_SIDE) $(QUICK) --cov --cov-report= $(TESTS) $(PYTEST_ARGS)
	@$(LOW_COVERAGE)

# in CI with the coverage of all tests, in the log, where measuring it takes no time to speak of (Python 3.12)
CI_COVERAGE = $(if $(CI),$(shell $(BIN)/python -c 'import sys; sys.version_info < (3, 12) or print("--cov --cov-report=")'))
test: $(READY) lint
	$(BIN)/python tests/fetch.py
	$(SIDE_BY_SIDE) $(CI_COVERAGE) -m "not browser" tests --ignore=$(BROWSER_TEST) $(PYTEST_ARGS)
	@$(if $(CI_COVERAGE),$(LOW_COVERAGE))
	$(SIDE_BY_SIDE) --nbmake --nbmake-timeout=1800 notebooks $(RUN_IN_BROWSER) $(BROWSER_TEST) $(PYTEST_ARGS)

notebooks: $(READY)
	$(BIN)/python notebooks/build.py

# Jupyter Book 1 (Sphinx), in an environment of its own. Its successors (Jupyter Book 2, mystmd) fetch their theme from
# api.mystmd.org while they build; this one has everything from PyPI, and makes plain HTML. It executes nothing.
# The page that prunes in the browser (docs/prune.md) is put beside it; that needs npm and PyPI, once.
# Where that address can be reached, `npx mystmd@1.8.3 start` makes the same site of myst.yml.
BOOK := jupyter-book==1.0.4.post1
BOOK_VENV := book/_build/venv
$(BOOK_VENV)/.ready: Makefile
	$(PYTHON) -m venv --clear $(BOOK_VENV)
	$(BOOK_VENV)/bin/python -m pip install --quiet "$(BOOK)"
	@touch $@

book: $(BOOK_VENV)/.ready
	$(BOOK_VENV)/bin/jupyter-book build . --config book/_config.yml --toc book/_toc.yml --path-output book --warningiserror --keep-going
	$(BOOK_VENV)/bin/python book/prune/build.py
	@echo "open book/_build/html/index.html (the page that prunes: python book/prune/serve.py)"

# A model of 93 MB in a browser, on a machine that does nothing else: not part of `make test`.
page-test: $(READY)
	$(BIN)/python -m pytest -m browser tests/course/test_prune_page.py $(PYTEST_ARGS)

# An environment anew each time, since the lessons' set-up cell has to fill it. torch comes with CUDA libraries (5 GB), unless
# PIP_EXTRA names an index with CPU builds. About eight minutes: not part of `make test`, a job of its own in CI.
COLAB_PYTHON ?= python3.13
COLAB := build/colab
colab: $(READY)
	@$(COLAB_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' || \
		{ echo "Colab has Python 3.13; name one with: make colab COLAB_PYTHON=/path/to/python3.13"; exit 1; }
	$(COLAB_PYTHON) -m venv --clear $(COLAB)
	$(COLAB)/bin/python -m pip install --quiet $(PIP_EXTRA) $$($(BIN)/python tests/colab_lessons.py --list)
	$(BIN)/python tests/fetch.py
	$(BIN)/python tests/colab_lessons.py $(CURDIR)/$(COLAB)/bin/python

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmarks: $(READY)
	$(BIN)/python benchmarks/bi_pass.py
	$(BIN)/python benchmarks/resume.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

architectures: $(READY)
	cd tests && HF_HUB_OFFLINE=1 ../$(BIN)/python verification.py

clean:
	rm -rf $(VENV) output build dist book/_build
