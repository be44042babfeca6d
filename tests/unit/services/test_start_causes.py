"""Which line of a log is the cause: logs of many versions, every form of a line's prefix, and exceptions of any class.

The logs in `data/start_logs` have the forms of the public reports that `expected.json` names. They are shortened, and where a report does not
show a line, one of the same form stands in for it.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.start_logs import explain, main
from tune_gpu.common.failures import FailureKind
from tune_gpu.services.start_failures import advice_for, explain_exit
from tune_gpu.services.start_failures.cause import is_evidence
from tune_gpu.services.start_failures.lines import read_line

LOGS = Path(__file__).parents[2] / "data" / "start_logs"
EXPECTED = json.loads((LOGS / "expected.json").read_text())

PREFIXES = {
    "none": "",
    "one bracket": "(EngineCore_0 pid=123) ",
    "two brackets": "(VllmWorkerProcess pid=303) (VllmWorkerProcess pid=306) ",
    "data parallel": "(EngineCore_DP0 pid=12) ",
    "tensor parallel": "(Worker_TP0 pid=12) ",
    "rank": "(VllmWorker rank=0 pid=12) ",
    "API server": "(APIServer pid=1) ",
    "Ray": "(RayWorkerWrapper pid=12, ip=10.0.0.7) ",
    "torch's rank": "[rank0]: ",
    "coloured": "\x1b[1;36m(VllmWorker rank=3 pid=4867)\x1b[0;0m ",
    "colours without escape": "[1;36m(VllmWorker rank=3 pid=4867)[0;0m ",
    "journal": "Aug 19 18:34:27 host vllm[8727]: (EngineCore pid=8727) ",
    "compose": "vllm-1  | ",
    "Kubernetes": "2025-08-11T04:29:42.123456789Z ",
    "no blank": "(Worker pid=12)",
}
STAMPS = {
    "printed": "",
    "0.8 to 0.32": "ERROR 04-16 11:53:49 [core.py:387] ",
    "debug paths": "ERROR 09-17 05:40:55 [v1/engine/core.py:712] ",
    "shortened path": "ERROR 09-17 05:40:55 [model_executor/.../utils/fp8_utils.py:712] ",
    "before 0.8": "ERROR 10-14 01:39:49 multiproc_worker_utils.py:226] ",
    "coloured": "\x1b[31mERROR\x1b[0m \x1b[90m04-16 11:53:49\x1b[0m \x1b[90m[core.py:387]\x1b[0m ",
    "with a year": "ERROR 2025-04-16 11:53:49,123 [core.py:387] ",
    "uvicorn": "ERROR:    ",
    "Ray": "2025-04-16 11:53:49,123\tERROR worker.py:421 -- ",
    "gunicorn": "[2023-11-29 20:49:57 +0000] [34] [ERROR] ",
    "logging": "2026-01-08 00:35:04,315 - vllm.v1.engine.core - ERROR - ",
    "basic": "ERROR:vllm.engine:",
}
EXCEPTIONS = [
    "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    "ray.exceptions.RayChannelTimeoutError: System error: Timed out waiting for object available to read.",
    "AssertionError",
    "zmq.error.ZMQError: Too many open files",
    "KeyboardInterrupt",
    "SystemExit: 3",
    "queue.Empty",
    "socket.timeout: timed out",
    "subprocess.CalledProcessError: Command '['ninja']' returned non-zero exit status 1.",
    "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised an exception",
    "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 263168, Hardware limit: 232448.",
    "my.package.Trouble: the model is no model",
    "KeyError: 'layers.1.mlp.experts.w13_weight'",
]


def _log(prefix: str, message: str, *, after: str = "") -> str:
    traced = ["EngineCore failed to start.", "Traceback (most recent call last):", '  File "core.py", line 3, in run', "    run()", "    ^^^^^", message, ""]
    ending = ["Process EngineCore_0:", "Traceback (most recent call last):", '  File "x.py", line 1, in <module>']
    pointer = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    return "\n".join(["INFO 04-16 11:52:45 [a.py:1] Loading", *(prefix + line for line in traced), after, *ending, pointer, "", ""])


def test_evidence_of_every_form_of_log() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(EXPECTED)
    found = {one["file"].removesuffix(".log"): one for one in explain(LOGS)}
    wrong = [name for name, right in EXPECTED.items() if found[name]["kind"] != right["kind"] or right["evidence"] not in found[name]["evidence"]]
    assert [(found[name]["kind"], found[name]["evidence"]) for name in wrong] == []
    assert all(one["advice"] and is_evidence(read_line(one["evidence"]).text) for one in found.values())


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_the_cause_is_found_behind_every_prefix(prefix: str, stamp: str) -> None:
    for message in EXCEPTIONS:
        found = explain_exit("vllm", _log(prefix + stamp, message), 1)
        assert found.evidence.endswith(message), (prefix, stamp, found.evidence)


@pytest.mark.parametrize("message", EXCEPTIONS)
def test_an_exception_of_any_class_is_the_cause(message: str) -> None:
    assert explain_exit("vllm", f"Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n    f()\n{message}\n", 1).evidence == message


LINES = st.sampled_from(
    [
        "",
        "   ",
        "Ninja output:",
        "Process EngineCore_0:",
        "EngineCore failed to start.",
        "WorkerProc failed to start.",
        "Traceback (most recent call last):",
        '  File "core.py", line 3, in run',
        "    raise RuntimeError(",
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
        "RuntimeError: Ninja build failed. Ninja output:",
        "RuntimeError:",
        "KeyError: 'layers.1'",
        "queue.Empty",
        "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "Got fatal signal from worker processes, shutting down. See stack trace above for root cause issue.",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "RuntimeError: Worker failed with error 'CUDA error: unknown error', please check the stack trace above for the root cause",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, no such model [type=value_error]",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.",
        "Loading weights took 0.38 seconds",
        "    | ",
        "  +-+---------------- 1 ----------------",
    ]
)
PREFIXED = st.tuples(st.sampled_from(list(PREFIXES.values())), st.sampled_from(list(STAMPS.values())), LINES).map("".join)


@given(st.lists(PREFIXED, max_size=12))
def test_evidence_is_never_empty_a_heading_or_a_pointer(lines: list[str]) -> None:
    evidence = explain_exit("vllm", "\n".join(lines), 1).evidence
    assert is_evidence(read_line(evidence).text)


@given(st.lists(PREFIXED, max_size=8), st.sampled_from(EXCEPTIONS), st.sampled_from(list(PREFIXES.values())), st.sampled_from(list(STAMPS.values())))
def test_where_a_log_has_a_cause_there_is_evidence(lines: list[str], message: str, prefix: str, stamp: str) -> None:
    assert explain_exit("vllm", "\n".join([*lines, _log(prefix + stamp, message)]), 1).evidence


@pytest.mark.parametrize("link", ["The above exception was the direct cause of the following exception:", "During handling of the above exception, another exception occurred:"])
def test_memory_in_a_chain_of_exceptions_is_the_cause(link: str) -> None:
    log = f"Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.\n\n{link}\n\nTraceback (most recent call last):\nRuntimeError: x\n"
    found = explain_exit("vllm", log, 1)
    assert (found.kind, found.evidence) == (FailureKind.STARTUP_OOM, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB.")


def test_of_a_direct_cause_and_its_consequence_the_cause_is_chosen() -> None:
    log = """\
Traceback (most recent call last):
  File "a.py", line 1, in a
RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
torch._inductor.exc.InductorError: RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl.
"""
    assert explain_exit("vllm", log, 1).evidence.startswith("RuntimeError: Failed to find C compiler")


def test_a_chain_that_this_python_prints_is_read(tmp_path: Path) -> None:
    """A real traceback with a chain and a group, through vLLM's own formatter."""
    log = tmp_path / "vllm.log"
    from vllm.logging_utils import NewLineFormatter

    handler = logging.FileHandler(log)
    handler.setFormatter(NewLineFormatter("(EngineCore pid=7) %(levelname)s %(asctime)s [%(fileinfo)s:%(lineno)d] %(message)s", "%m-%d %H:%M:%S"))
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(handler)
    try:
        try:
            raise LookupError("no block is left")
        except LookupError as error:
            raise ExceptionGroup("two things", [ValueError("the scheduler is lost"), TypeError("x")]) from error
    except ExceptionGroup:
        logger.exception("EngineCore failed to start.")
    handler.close()
    found = explain_exit("vllm", log.read_text() + "RuntimeError: Engine core initialization failed. See root cause above.\n", 1)
    assert found.evidence.endswith("LookupError: no block is left")


def test_an_exception_without_words_keeps_its_own_line() -> None:
    traced = "Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n"
    assert explain_exit("vllm", f"{traced}AssertionError: \n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace\n", 1).evidence == "AssertionError"
    assert explain_exit("vllm", f"{traced}ImportError: \nAutoModel requires the PyTorch library\n", 1).evidence == "ImportError: AutoModel requires the PyTorch library"


@pytest.mark.parametrize(
    "message",
    [
        "nvcc fatal   : Unsupported gpu architecture 'compute_90a'",
        'sampling.cu(12): error: identifier "__nv_bfloat162" is undefined',
        "/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found",
        "main.c:5:10: fatal error: Python.h: No such file or directory",
        "/usr/bin/ld: cannot find -lcuda: No such file or directory",
        "ptxas fatal   : Unresolved extern function '__nv_expf'",
    ],
)
@pytest.mark.parametrize("first", ["RuntimeError: Ninja build failed. Ninja output:", "RuntimeError: Error building extension 'sampling': [1/3] nvcc -c sampling.cu"])
def test_of_a_compilers_output_the_complaint_is_the_cause(first: str, message: str) -> None:
    output = ["ninja: Entering directory `/c'", "[1/4] nvcc -c a.cu -o a.o", "FAILED: a.o ", message, "ninja: build stopped: subcommand failed.", ""]
    log = "\n".join(f"(EngineCore_0 pid=5) ERROR 08-21 10:00:00 [core.py:700] {line}" for line in ["Traceback (most recent call last):", first, *output])
    assert explain_exit("vllm", log, 1).evidence.endswith(f"] {message}")


def test_a_pointer_after_a_reason_is_left_out() -> None:
    log = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['XForCausalLM'] failed to be inspected. Please check the logs for more details. [type=value_error]
"""
    assert explain_exit("vllm", log, 1).evidence.endswith("ModelConfig: Value error, Model architectures ['XForCausalLM'] failed to be inspected.")


def test_the_last_words_of_native_code_are_evidence() -> None:
    for message in ("Fatal Python error: Segmentation fault", "realloc(): invalid pointer", "Bus error (core dumped)", "python: symbol lookup error: libx.so: undefined symbol: f"):
        assert explain_exit("vllm", f"INFO loading\n{message}\nRuntimeError: Engine core initialization failed. See root cause above.\n", 134).evidence == message


def test_the_benchmark_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    assert main([str(LOGS), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {tuple(one) for one in found} == {("file", "kind", "evidence", "advice")}
    assert next(one for one in found if one["file"] == "whisper_out_of_memory.log")["advice"].endswith("int8.")
    assert "ninja_0_10.log" in capsys.readouterr().out
    assert main([str(tmp_path)]) == 2


def test_a_long_log_is_read_in_proportion_to_its_length() -> None:
    """By the number of calls, which no other load changes."""

    def calls(lines: int) -> int:
        log, count = "(Worker pid=1) ERROR 04-16 11:53:49 [core.py:387] x: y z\n" * lines, 0

        def count_calls(_frame: object, event: str, _argument: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(count_calls)
        try:
            explain_exit("vllm", log, 1)
        finally:
            sys.setprofile(None)
        return count

    assert calls(400) < 5 * calls(100)


def test_of_an_exception_of_cpp_its_words_are_the_evidence() -> None:
    log = "terminate called after throwing an instance of 'std::runtime_error'\n  what():  CUDA failed with error unspecified launch failure\n"
    assert explain_exit("whisper", log, 134).evidence == "what():  CUDA failed with error unspecified launch failure"


def test_of_a_failed_assembly_the_assemblers_words_are_the_evidence() -> None:
    fatal = "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"
    message = f"torch._inductor.exc.InductorError: PTXASError: PTXAS error: Internal Triton PTX codegen error\n`ptxas` stderr:\n{fatal}\n\nRepro command: ptxas -lineinfo"
    assert explain_exit("vllm", f"Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n{message}\n", 1).evidence == fatal


def test_the_reason_within_a_validation_error_decides_the_advice() -> None:
    log = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Invalid repository ID or local directory specified: '/models/x'.
"""
    assert advice_for(explain_exit("vllm", log, 1)) == "Check the model's name, its files and the access to them."
