# make demo    set everything up and segment a scene (IMAGE=, CLASSES= and OUT= for your own)
# make test    set everything up and run all checks
# make help    the rest
#
# Needs Python 3.11 or later, GNU make and a POSIX shell. PYTHON=python3.12 chooses an interpreter.

# The demo's arguments. Only values given on the command line count, not stray environment variables of these names,
# and they reach the shell as environment variables, so that spaces, quotes, semicolons and $ signs stay what they are.
IMAGE :=
CLASSES :=
OUT := runs/demo
override IMAGE := $(value IMAGE)
override CLASSES := $(value CLASSES)
override OUT := $(value OUT)
export IMAGE CLASSES OUT

PYTHON :=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-here
# For pytest: how many workers, and anything else, for example ARGS="-k metrics".
WORKERS := auto
ARGS :=
# For `make reproduce`: which tables (all that are quick if none is named), and the folder of the runs.
TABLES :=
RUNS := runs

.DELETE_ON_ERROR:
.PHONY: help setup demo lab reproduce test lint format bench test-slow test-browser lock clean FORCE

help:
	@echo 'make demo          segment a simulated scene; results in runs/demo'
	@echo 'make demo IMAGE=scene.tif CLASSES="water, river; forest, trees; roads" OUT=runs/mine'
	@echo '                   the same for your own GeoTIFF: a semicolon between classes, a comma between synonyms'
	@echo 'make lab           JupyterLab on the quickstart'
	@echo 'make reproduce     run the notebooks behind the tables as far as they are not finished; report in runs/report.html'
	@echo 'make reproduce TABLES="sdci-table2" ARGS="--profile full --workers 2"'
	@echo 'make test          lint, types, import directions, notebooks, tests'
	@echo 'make lint          the checks without the tests'
	@echo 'make format        let ruff mend formatting and simple findings'
	@echo 'make test-slow     the tests that take minutes'
	@echo 'make test-browser  JupyterLab and the panels in a real browser (installs Chromium where it may)'
	@echo 'make bench         times and memory, appended to benchmarks/'
	@echo 'make bench ARGS="kernels --full"   the large sizes, some 20 minutes; --resume goes on after an interruption'
	@echo 'make setup         only install, into .venv'
	@echo 'make lock          write constraints.txt anew from what pip resolves today'
	@echo 'make clean         remove the environment, caches and runs'

setup: $(STAMP)

# The stamp holds the checkout's path: a virtual environment that was moved or copied doesn't work and is made anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif
$(STAMP): pyproject.toml constraints.txt
	@sh tools/setup.sh "$(VENV)" "$(PYTHON)"
	@pwd -P > $@

demo: $(STAMP)
	@$(BIN)/python -m rsovlib.experiments.demo --out "$$OUT" \
	    $${IMAGE:+--image "$$IMAGE"} $${CLASSES:+--classes "$$CLASSES"}

lab: $(STAMP)
	@$(BIN)/python -m jupyterlab --KernelManager.transport_encryption=auto notebooks/quickstart.ipynb $(ARGS)

# The report is written whatever became of the runs; what make says is what became of them.
reproduce: $(STAMP)
	@code=0; $(BIN)/rsovlib reproduce $(TABLES) --out "$(RUNS)" $(ARGS) || code=$$?; \
	    test $$code -gt 1 || $(BIN)/rsovlib report --out "$(RUNS)" || code=$$?; exit $$code

test: $(STAMP)
	@sh tools/check.sh "$(BIN)" lint tests -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(STAMP)
	@sh tools/check.sh "$(BIN)" lint

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find notebooks -name '*.ipynb' -exec $(BIN)/nbstripout --keep-id {} +

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

test-browser: $(STAMP)
	@sh tools/chromium.sh
	$(BIN)/python -m pytest -m browser $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

lock:
	@test -x $(BIN)/python || sh tools/setup.sh "$(VENV)" "$(PYTHON)"
	$(BIN)/python tools/lock.py

clean:
	rm -rf $(VENV) build dist runs .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
