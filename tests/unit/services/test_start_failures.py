"""Why a server did not start, from what servers really printed (vLLM 0.32 on the CPU here; GPU texts from vLLM's public issues)."""

from __future__ import annotations

import pytest

from tune_gpu.common.failures import FailureKind
from tune_gpu.services.start_failures import advice_for, explain_exit, explain_loss, out_of_memory_lines

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


def test_the_samplers_lack_of_memory_has_its_own_advice() -> None:
    assert "max_num_seqs" in explain_exit("vllm", CASES[7][0], 1).message


def test_a_death_by_signal_names_the_signal() -> None:
    failure = explain_exit("vllm", "INFO loading\n", 139)
    assert failure.kind is FailureKind.STARTUP_CRASH
    assert "signal 11" in failure.message
    assert "SIGKILL" in explain_exit("vllm", "", 137).message


def test_of_an_empty_log_the_exit_is_the_evidence() -> None:
    assert explain_exit("whisper", "", 1).evidence == "ended with exit code 1 while starting; its log names no cause"


def test_out_of_memory_requests_of_a_running_service_are_counted() -> None:
    once = 'Error handling request from 127.0.0.1\nTraceback (most recent call last):\n    raise MemoryError\nRuntimeError: CUDA failed with error out of memory\n'
    assert out_of_memory_lines("INFO loaded\n") == []
    assert out_of_memory_lines(once * 2) == ["RuntimeError: CUDA failed with error out of memory"] * 2


# What vLLM 0.32 printed on the CPU for a folder without weights, its lines of code and the paths in front of them left out
NO_WEIGHTS = """\
(APIServer pid=31332) WARNING 11-29 15:14:23 [system_utils.py:255] Found ulimit of 20000. This can cause fd limit errors like `OSError: [Errno 24] Too many
(Worker pid=31560) ERROR 11-29 15:14:54 [multiproc_executor.py:953] WorkerProc failed to start.
(Worker pid=31560) ERROR 11-29 15:14:54 [multiproc_executor.py:953] Traceback (most recent call last):
(Worker pid=31560) ERROR 11-29 15:14:54 [multiproc_executor.py:953]     raise RuntimeError(
(Worker pid=31560) ERROR 11-29 15:14:54 [multiproc_executor.py:953] RuntimeError: Cannot find any model weights with `models/demo-llm`
(EngineCore pid=31459) ERROR 11-29 15:14:57 [core.py:1510] EngineCore failed to start.
(EngineCore pid=31459) ERROR 11-29 15:14:57 [core.py:1510] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
Traceback (most recent call last):
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
Traceback (most recent call last):
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
CAUSE = "(Worker pid=31560) ERROR 11-29 15:14:54 [multiproc_executor.py:953] RuntimeError: Cannot find any model weights with `models/demo-llm`"


def test_the_evidence_is_the_cause_not_a_line_that_refers_to_it() -> None:
    assert explain_exit("vllm", NO_WEIGHTS, 1).evidence == CAUSE


def test_of_several_workers_the_one_that_failed_first_speaks() -> None:
    other = "(Worker_TP1 pid=31561) ERROR 11-29 15:14:55 [multiproc_executor.py:953] torch.distributed.DistNetworkError: The client socket has timed out"
    assert explain_exit("vllm", NO_WEIGHTS.replace(CAUSE, f"{CAUSE}\n{other}"), 1).evidence == CAUSE


def test_an_error_without_words_is_a_cause_as_well() -> None:
    message = CAUSE.partition("RuntimeError")[0] + "AssertionError"
    assert explain_exit("vllm", NO_WEIGHTS.replace(CAUSE, message), 1).evidence == message


def test_an_engine_that_died_under_load_has_its_own_message() -> None:
    log = """\
(APIServer pid=1) ERROR 11-29 15:14:50 [serving.py:9] ValueError: This model's maximum context length is 1024 tokens
(EngineCore pid=2) ERROR 11-29 15:14:54 [core.py:1520] EngineCore encountered a fatal error.
(EngineCore pid=2) ERROR 11-29 15:14:54 [core.py:1520] KeyError: 'block 7'
(APIServer pid=1) ERROR 11-29 15:14:55 [async_llm.py:708] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""
    found = explain_loss("vllm", log, 1)
    assert (found.kind, found.evidence.partition("] ")[2]) == (FailureKind.SERVICE_LOST, "KeyError: 'block 7'")


def test_of_an_engine_that_a_signal_ended_the_signal_is_the_evidence() -> None:
    expected = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': -9}"
    found = explain_exit("vllm", f"INFO starting\n\nTraceback (most recent call last):\n{expected}\n", 1)
    assert found.evidence == "Failed core proc(s): {'EngineCore_DP0': -9}" == explain_exit("vllm", expected, 1).evidence
    assert "its engine was ended by signal 9 (SIGKILL" in found.message
    assert advice_for(found) == "Free memory of the host or widen its limit, or see in the kernel's log what ended it."


def test_where_nothing_stands_above_a_pointer_the_last_other_line_speaks() -> None:
    message = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert explain_exit("vllm", f"INFO starting\n\nTraceback (most recent call last):\n{message}\n", 1).evidence == "INFO starting"
    assert explain_exit("vllm", message, 1).evidence == "ended with exit code 1 while starting; its log names no cause"


def test_contradicting_settings_are_both_named() -> None:
    """What vLLM 0.32 printed for three cards and eight heads."""
    log = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig
  Value error, Total number of attention heads (8) must be divisible by tensor parallel size (3). [type=value_error, input_value=ArgsKwargs(()), input_type=ArgsKwargs]
    For further information visit the documentation
"""
    assert "heads (8) must be divisible by tensor parallel size (3)" in explain_exit("vllm", log, 1).evidence
