# Every target sets up what it needs in .venv; a fresh clone needs Python 3.11+ and make.
PYTHON ?= python3
# Installed before everything else: left to itself, pip brings a torch with several gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: help demo serve test lint bench loadtest image-check clean

help:
	@echo "make demo      train on MovieLens-1M (or a synthetic log), publish, and rank a slate over HTTP"
	@echo "make serve     serve what the demo published on http://127.0.0.1:8000 (docs under /docs)"
	@echo "make test      lint, types and the whole test suite"
	@echo "make lint      ruff and mypy"
	@echo "make bench     all benchmarks, with their baselines in the same run"
	@echo "make loadtest  Locust and an open-loop client against a service of their own; report in loadtest/report"
	@echo "make image-check  build the container images with buildah and run them (root; no container engine needed)"
	@echo "make clean     remove .venv, the demo's files and caches"

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  v >= (3, 11) or sys.exit(f"ctrank needs Python 3.11 or later, found {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[train,onnx,loadtest,dev]"
	@touch $@

demo: .venv/ready
	$(BIN)/python -m training.demo --out demo

demo/registry:
	$(MAKE) demo

serve: .venv/ready | demo/registry
	$(BIN)/ctrank-serve run --registry demo/registry

test: lint
	$(BIN)/python -m pytest -m "not timed" --numprocesses auto --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m timed

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	for what in kernels catalogue http cache onnx; do $(BIN)/ctrank-serve bench $$what || exit 1; done

loadtest: .venv/ready
	$(BIN)/python -m loadtest

image-check:
	$(PYTHON) deploy/check_image.py

clean:
	rm -rf .venv demo build loadtest/report .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
