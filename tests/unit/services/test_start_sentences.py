"""The sentences by which vLLM and its libraries say that something does not fit, version by version, and what is none of them."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.services.start_failures import advice_for, explain_exit, explain_loss
from tune_gpu.services.start_failures.sentences import DEFAULT_ADVICE, GROUPS, HINTS

TABLE = Path(__file__).parents[2] / "data" / "start_logs" / "sentences.tsv"
"""Taken from the source distributions of vLLM 0.8.0 to 0.31.0 and the installed 0.32.0: the first and the last version that has each wording."""


class Row(NamedTuple):
    """One wording."""

    first: str
    last: str
    kind: str
    advice: str
    sentence: str

    @property
    def versions(self) -> list[tuple[int, int]]:
        return [] if self.first == "-" else [(0, minor) for minor in range(int(self.first.split(".")[1]), int(self.last.split(".")[1]) + 1)]


with TABLE.open() as file:
    ROWS = [Row(*row) for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]]

CONFIGURATION = [
    ("ValueError: max_num_batched_tokens (2048) is smaller than max_model_len (8192). This effectively limits the maximum sequence length", "setting"),
    ("ValueError: max_num_batched_tokens (128) must be greater than or equal to max_num_seqs (256).", "setting"),
    ("ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len (max_position_embeddings=32768 or", "Lower max_model_len"),
    ("ValueError: GPU memory utilization must be less than 1.0. Got 1.2.", "setting"),
    ("RuntimeError: Insufficient space in /dev/shm for object storage: 1024 MiB required, 64 MiB free. Increase /dev/shm", "--shm-size"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "built for this card"),
    ("RuntimeError: CUDA error: an illegal memory access was encountered", ""),
    ("RuntimeError: unable to open shared memory object </torch_9> in read-write mode: No space left on device (28)", "--shm-size"),
    ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", "version that knows the model"),
    ("RuntimeError: Unsupported model binary version. This executable supports models with binary version v6 or below", "version that knows the model"),
    ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has 7.5.", "which this card has"),
    ("ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89.", "which this card has"),
    ("ValueError: Requested float16 compute type, but the target device or backend do not support efficient float16", "which this card has"),
    ("RuntimeError: Found no NVIDIA driver on your system.", "see the card"),
    ("RuntimeError: CUDA failed with error no CUDA-capable device is detected", "see the card"),
    ("OSError: Can't load tokenizer for '/models/foo'.", "model's name"),
    ("ImportError: libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by vllm/_C.abi3.so)", "library"),
    ("Killed", "kernel's log"),
    ("/entrypoint.sh: line 3:    12 Killed                  vllm serve x", "kernel's log"),
    ("ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]", "setting"),
    ("RuntimeError: This CTranslate2 package was not compiled with CUDA support", "built for this card"),
    ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1)", "model's name"),
    ("triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 66560, Hardware limit: 65536.", ""),
    ("MemoryError: Not enough space in the data buffer, try calling free_buf() to free up space", ""),
    ("ImportError: /lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block", "library"),
    ("OSError: /models/CUDA out of memory/config.json does not appear to be a JSON file", ""),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/data/OutOfMemoryError'", ""),
    ("vllm: error: unrecognized arguments: --gpu-memory 0.5", "setting"),
    ('RuntimeError: handles_.at(i) INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":387, please report a bug to PyTorch.', ""),
    ('RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/PeerToPeerAccess.cpp":12, please report a bug to PyTorch.', ""),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.first}-{row.sentence[:50]}")
def test_each_wording_has_its_kind_and_its_advice(row: Row) -> None:
    failure = explain_exit("vllm", f"INFO 11-24 starting\n{row.sentence}\nRuntimeError: Engine core initialization failed. See root cause above.\n", 1)
    assert (failure.kind, failure.evidence) == (row.kind, row.sentence)
    assert row.advice in advice_for(failure)
    assert advice_for(failure) in failure.message


@pytest.mark.parametrize("row", [row for row in ROWS if row.versions], ids=lambda row: f"{row.first}-{row.sentence[:50]}")
def test_a_sentence_is_expected_of_the_versions_that_print_it(row: Row) -> None:
    patterns = [sentence for group in GROUPS for sentence in group.sentences if sentence.since and sentence.pattern.search(row.sentence)]
    assert all(any(sentence.printed_by(version) for sentence in patterns) for version in row.versions)


def test_every_sentence_about_memory_stands_in_the_table() -> None:
    missing = [s.pattern.pattern for g in GROUPS for s in g.sentences if s.since and not any(s.pattern.search(row.sentence) for row in ROWS)]
    assert missing == []


@pytest.mark.parametrize(("line", "advice"), CONFIGURATION)
def test_a_setting_or_a_path_with_a_memory_word_is_no_lack_of_memory(line: str, advice: str) -> None:
    failure = explain_exit("vllm", f"INFO starting\n{line}\n", 1)
    assert (failure.kind, failure.evidence) == (FailureKind.STARTUP_CRASH, line)
    assert advice in advice_for(failure)


def _raised(path: Path) -> Iterator[str]:
    """Each text that a module raises, with a number in place of what it fills in."""
    for node in ast.walk(ast.parse(path.read_text())):
        argument = node.exc.args[0] if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args else None
        argument = node.msg if isinstance(node, ast.Assert) else argument
        if argument is not None:
            yield "".join(
                part.value if isinstance(part.value, str) else "8.0" for part in ast.walk(argument) if isinstance(part, ast.Constant | ast.FormattedValue)
            )


NO_LACK_OF_MEMORY = re.compile(
    r"kv_cache_memory_bytes|memory profiling\.|memory pool|sleep|wake|memory access|shared memory|memory format|pin|memory_stats|mapped|attention-free", re.IGNORECASE
)


def test_no_sentence_of_the_installed_vllm_about_memory_is_missed() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent / "v1"
    files = [root / "core" / "kv_cache_utils.py", *sorted((root / "worker").glob("*.py"))]
    about = [text for file in files for text in _raised(file) if re.search(r"(?:not enough|insufficient|available|out of|less than|exceed)\b.*memory|GiB", text)]
    known = [text for text in about if any(group.matches(text) for group in GROUPS)]
    assert len(known) >= 5
    assert [text for text in about if text not in known and not NO_LACK_OF_MEMORY.search(text)] == []


def test_what_was_survived_is_no_cause() -> None:
    log = """\
WARNING 04-20 10:00:00 [flashinfer_all_reduce.py:74] CUDA out of memory. Tried to allocate 64.00 MiB. Falling back.
W0420 10:00:00.123000 99 torch/_inductor/select_algorithm.py:12] CUDA out of memory. Tried to allocate 64.00 MiB.
INFO 04-20 10:00:01 [model_runner.py:1399] If you are running out of memory, consider decreasing `gpu_memory_utilization`
KeyError: 'layers.1'
"""
    found = explain_exit("vllm", log, 1)
    assert (found.kind, found.evidence) == (FailureKind.STARTUP_CRASH, "KeyError: 'layers.1'")


def test_whispers_lack_of_memory_has_whispers_advice() -> None:
    failure = explain_exit("whisper", "RuntimeError: CUDA failed with error out of memory\n", 1)
    assert "smaller Whisper model" in advice_for(failure)
    assert "max_num_seqs" not in failure.message
    assert "smaller Whisper model" in explain_loss("whisper", "RuntimeError: CUDA failed with error out of memory\n", 1).message


def test_vllms_word_that_the_weights_did_not_fit_is_preferred() -> None:
    log = """\
ERROR 01-15 08:00:00 [gpu_model_runner.py:3896] Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization
ERROR 01-15 08:00:01 [core.py:936] EngineCore failed to start.
ERROR 01-15 08:00:01 [core.py:936] Traceback (most recent call last):
ERROR 01-15 08:00:01 [core.py:936] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB.
"""
    found = explain_exit("vllm", log, 1)
    assert found.evidence.endswith("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB.")
    assert "quantised model" in found.message
    assert "quantised model" in advice_for(found)


def test_a_failure_read_back_from_a_run_has_advice_too() -> None:
    for kind in DEFAULT_ADVICE:
        assert advice_for(Failure(kind, "vllm", Phase.START, "as it was written", "as it was logged")) == DEFAULT_ADVICE[kind]
    assert advice_for(Failure(FailureKind.WRONG_DEVICE, "vllm", Phase.START, "no such card")) == ""


def test_advice_is_one_plain_sentence() -> None:
    for advice in {text for group in (*GROUPS, *HINTS) for text in (group.advice, group.whisper) if text} | set(DEFAULT_ADVICE.values()):
        assert re.fullmatch(r"[A-Z].*[^.]\.", advice)
