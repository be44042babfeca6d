"""Why a server did not start, from what servers really printed (vLLM 0.32 on the CPU here; GPU texts from vLLM's public issues)."""

from __future__ import annotations

import pytest

from tune_gpu.measurement import FailureKind
from tune_gpu.services.start_failures import explain_exit, out_of_memory_lines

CASES = [
    (
        "ValueError: Available memory on node 0 (9.36/10.46 GiB) on kv cache allocation is less than requested memory for kv (-0.47/0.1 GiB). Reduce",
        FailureKind.STARTUP_NO_KV_MEMORY,
        4.7,
    ),
    (
        "ValueError: Available memory on node 0 (9.47/10.46 GiB) on startup is less than desired CPU memory utilization (0.99, 10.36 GiB). On the",
        FailureKind.STARTUP_OOM,
        0.0859,
    ),
    (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        FailureKind.STARTUP_NO_KV_MEMORY,
        0.0,
    ),
    (
        "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (18544). Try",
        FailureKind.STARTUP_NO_KV_MEMORY,
        0.0,
    ),
    (
        "ValueError: To serve at least one request with the models's max seq len (131072), (8.00 GiB KV cache is needed, which is larger than the "
        "available KV cache memory (2.00 GiB).",
        FailureKind.STARTUP_NO_KV_MEMORY,
        0.75,
    ),
    (
        "ValueError: Free memory on device (3.1/11.75 GiB) on startup is less than desired GPU memory utilization (0.5, 5.88 GiB). Decrease",
        FailureKind.STARTUP_OOM,
        0.4728,
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.", FailureKind.STARTUP_OOM, 0.0),
    ("RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.", FailureKind.STARTUP_OOM, 0.0),
    ("RuntimeError: CUDA failed with error out of memory", FailureKind.STARTUP_OOM, 0.0),  # CTranslate2's words
    ("(Worker_TP3 pid=1037) ERROR 08-11 04:29:42 [multiproc_executor.py:1020] RuntimeError: Triton Error [CUDA]: out of memory", FailureKind.STARTUP_OOM, 0.0),
    ("RuntimeError: CUDA driver error: out of memory", FailureKind.STARTUP_OOM, 0.0),
    ("torch.AcceleratorError: CUDA error: out of memory", FailureKind.STARTUP_OOM, 0.0),
    ("Cuda failure 2 'out of memory'", FailureKind.STARTUP_OOM, 0.0),  # the last line of torch's DistBackendError
    ("RuntimeError: cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", FailureKind.STARTUP_OOM, 0.0),
    (
        "AssertionError: Error in memory profiling. Initial free memory 6.41 GiB, current free memory 7.92 GiB. This happens when other processes",
        FailureKind.MEASUREMENT_INVALID,
        0.0,
    ),
    (
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
        FailureKind.PORT_CONFLICT,
        0.0,
    ),
    ("OSError: [Errno 98] Address already in use", FailureKind.PORT_CONFLICT, 0.0),
    ("KeyError: 'architectures'", FailureKind.STARTUP_CRASH, 0.0),
]


@pytest.mark.parametrize(("line", "kind", "shortfall"), CASES)
def test_each_text_has_its_kind_its_evidence_and_by_how_much_it_missed(line: str, kind: FailureKind, shortfall: float) -> None:
    log = f"INFO 11-24 starting\n{line}\nRuntimeError: Engine core initialization failed. See root cause above.\n"
    failure = explain_exit("vllm", log, 1)
    assert failure.kind is kind
    if kind is not FailureKind.STARTUP_CRASH:
        assert failure.evidence == line
    assert failure.shortfall == pytest.approx(shortfall, abs=1e-3)


def test_the_sampler_is_told_from_other_want_of_memory_because_its_repair_differs() -> None:
    assert "max_num_seqs" in explain_exit("vllm", CASES[7][0], 1).message


def test_a_death_by_signal_names_the_signal() -> None:
    failure = explain_exit("vllm", "INFO loading\n", 139)
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "signal 11" in failure.message
    assert "SIGKILL" in explain_exit("vllm", "", 137).message


def test_an_empty_log_is_no_trouble() -> None:
    assert explain_exit("whisper", "", 1).evidence == ""


def test_a_service_that_stays_up_says_itself_for_how_many_requests_it_had_no_memory() -> None:
    once = 'Error handling request from 127.0.0.1\nTraceback (most recent call last):\n    raise MemoryError\nRuntimeError: CUDA failed with error out of memory\n'
    assert out_of_memory_lines("INFO loaded\n") == []
    assert out_of_memory_lines(once * 2) == ["RuntimeError: CUDA failed with error out of memory"] * 2
