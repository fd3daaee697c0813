# Every target sets up what it needs in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
# With an NVIDIA GPU the gpu extra, else cpu: onnxruntime and onnxruntime-gpu exclude each other.
ACCELERATOR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
INSTALLED := .venv/installed-$(ACCELERATOR)

.PHONY: install demo test check format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("reidexport needs Python 3.11 to 3.13; set PYTHON=" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[export,$(ACCELERATOR),test]"
	@rm -f .venv/installed-* && touch $@

demo: install
	$(BIN)/reidexport demo --out demo

test: install
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo dist .pytest_cache .mypy_cache .ruff_cache .coverage
