"""What a server that did not start says of why: from its exit code and its log to a `Failure`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tune_gpu.measurement import Failure, FailureKind, Phase


@dataclass(frozen=True)
class _Sign:
    kind: FailureKind
    pattern: re.Pattern[str]
    message: str


def _sign(kind: FailureKind, message: str, *patterns: str) -> _Sign:
    return _Sign(kind, re.compile("|".join(patterns), re.IGNORECASE), message)


# The first that matches decides, so the particular stands before the general. Texts of vLLM 0.4 to 0.32.
_SIGNS = (
    _sign(FailureKind.PORT_CONFLICT, "another process has the port", r"address already in use"),
    _sign(
        FailureKind.STARTUP_NO_KV_MEMORY,
        "the share leaves no room for one sequence's cache blocks: more share or a shorter context",
        r"No available memory for the cache blocks",
        r"allocation is less than requested memory for kv",
        r"max(?:imum)? (?:model|seq)\w* len.* is larger than .*(?:KV cache|available KV)",
        r"To serve at least one request with the model",
        r"is larger than the available KV cache memory",
        r"no available memory for kv",
    ),
    _sign(
        FailureKind.STARTUP_OOM,
        "the share asks for more than is free: a smaller share, or free the memory that others hold",
        r"on startup is less than desired (?:GPU|CPU) memory utilization",
    ),
    _sign(
        FailureKind.STARTUP_OOM,
        "out of memory in the sampler's warm-up: fewer sequences (max_num_seqs)",
        r"out of memory occurred when warming up sampler",
    ),
    _sign(
        FailureKind.MEASUREMENT_INVALID,
        "another process gave memory back while vLLM measured how much is free: that may pass",
        r"Error in memory profiling\. Initial free memory",
    ),
    _sign(
        FailureKind.STARTUP_OOM,
        "out of memory while starting: a smaller share, fewer sequences or a smaller model",
        r"OutOfMemoryError",
        r"\bCUDA\b.{0,40}\bout of memory\b",  # torch, CTranslate2 and Triton each say it in their own way, NCCL as "Cuda failure 2 'out of memory'"
        r"CUBLAS_STATUS_ALLOC_FAILED",
        r"DefaultCPUAllocator: can't allocate memory",
        r"Cannot allocate memory",
        r"MemoryError",
        r"std::bad_alloc",
    ),
)

_ERROR_LINE = re.compile(r"(?:^|[\s.])(?:(?:\w*(?:Error|Exception)|error):? |\w+(?:Error|Exception)$)", re.IGNORECASE)
"""One that has no words (of a bare `assert`) ends its line."""
_POINTS_UP = re.compile(r"(?:see|check) (?:the )?(?:root cause|stack trace)", re.IGNORECASE)
"""vLLM's last words: each process that waited for another says that it failed, and that why stands above."""
_PROCESS = re.compile(r"\(\w[^()]* pid=\d+\)")
_HEADING = re.compile(r"\d+ validation errors? for \w+$")
"""pydantic's, of the lines that say what is wrong."""


def explain_exit(service: str, log: str, exit_code: int | None) -> Failure:
    """Why a start ended before the service was ready.

    Args:
        service: `vllm` or `whisper`.
        log: all that it printed.
        exit_code: 128 + signal for a death by signal; null if it was still running (then the log alone speaks).
    """
    lines = [line for line in log.splitlines() if line.strip()]
    for sign in _SIGNS:
        for line in lines:
            if sign.pattern.search(line):
                return Failure(sign.kind, service, Phase.START, sign.message, _short(line), shortfall=_shortfall(line))
    decisive = _decisive(lines)
    if exit_code is not None and exit_code > 128:
        message = f"ended by signal {exit_code - 128} while starting"
        if exit_code == 137:
            message += " (SIGKILL: somebody's, or the kernel's for want of memory)"
    else:
        message = f"ended with exit code {exit_code} while starting"
    return Failure(FailureKind.STARTUP_CRASH, service, Phase.START, message, _short(decisive))


def _decisive(lines: list[str]) -> str:
    """The last error; where that points to a cause above, the last of the process that failed first: others fail after it, for want of it."""
    found = next((line for line in reversed(lines) if _ERROR_LINE.search(line)), lines[-1] if lines else "")
    if _POINTS_UP.search(found):
        causes = [line for line in lines if " ERROR " in line and _ERROR_LINE.search(line.partition(" ERROR ")[2])]
        causes = [line for line in causes if not _POINTS_UP.search(line) and not line.startswith("(APIServer")]  # that has errors of requests, too
        process = _PROCESS.match(causes[0]) if causes else None
        found = next((line for line in reversed(causes) if process is None or line.startswith(process[0])), found)
    if _HEADING.search(found) and (after := lines[lines.index(found) + 1 :]):
        found = f"{found}: {after[0].strip()}"
    return found


def explain_loss(service: str, log: str, exit_code: int) -> Failure:
    """Why a service that was ready ended: `oom` if its log says so, else `service_lost`."""
    found = explain_exit(service, log, exit_code)
    oom = found.kind is FailureKind.STARTUP_OOM
    message = "out of memory under load: a smaller share, fewer sequences or a smaller model" if oom else found.message
    return replace(
        found,
        kind=FailureKind.OOM if oom else FailureKind.SERVICE_LOST,
        phase=Phase.LOAD,
        message=message.replace("while starting", "under load"),
    )


def out_of_memory_lines(log: str) -> list[str]:
    """Each time that a service said it had no memory; one that stays up answers such a request with an error. A traceback's lines of code are indented."""
    signs = [sign.pattern for sign in _SIGNS if sign.kind is FailureKind.STARTUP_OOM]
    return [_short(line) for line in log.splitlines() if not line[:1].isspace() and any(sign.search(line) for sign in signs)]


def _short(line: str) -> str:
    return line.strip()[:500]


def _shortfall(line: str) -> float:
    """By what share the need was missed, from a log line that names both ("(3.1/23.5 GiB) … (0.5, 11.8 GiB)"); 0 if it does not."""
    free = re.search(r"\(([\d.]+)/[\d.]+ GiB\) on startup is less than .*?, ([\d.]+) GiB\)", line)
    if free and float(free[2]) > 0:
        return max(0.0, 1.0 - float(free[1]) / float(free[2]))
    kv = re.search(r"requested memory for kv \((-?[\d.]+)/([\d.]+) GiB\)", line)
    if kv and float(kv[2]) > 0:
        return max(0.0, -float(kv[1]) / float(kv[2]))
    needed = re.search(r"\(([\d.]+) GiB KV cache is needed.*?\(([\d.]+) GiB\)", line)
    if needed and float(needed[1]) > 0:
        return max(0.0, 1.0 - float(needed[2]) / float(needed[1]))
    return 0.0
