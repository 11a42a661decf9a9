# Two commands for a newcomer: `make demo` and `make test`. Both create .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/ppgen train --model VAE --model.latent_dim 2 --data mnist --binarize dynamic \
	    --epochs 100 --out runs/demo --overwrite
	$(BIN)/ppgen evaluate runs/demo --particles 100
	$(BIN)/ppgen report runs/demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
