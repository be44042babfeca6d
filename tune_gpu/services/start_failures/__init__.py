"""Explain why a service did not start or did not stay, from its exit code and its log, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import replace

from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.services.start_failures.cause import find_cause
from tune_gpu.services.start_failures.lines import read_line, read_lines
from tune_gpu.services.start_failures.sentences import DEFAULT_ADVICE, GROUPS, find_group, find_hint

_LONGEST_EVIDENCE = 500
_GIB = r"(-?\d+(?:\.\d+)?)"
_KILLED_CHILD = re.compile(r"Failed core proc\(s\): \{[^}]*?: -(\d+)")


def explain_exit(service: str, log: str, exit_code: int | None) -> Failure:
    """Return why a start ended before the service was ready.

    Args:
        service: `vllm` or `whisper`.
        log: its whole output.
        exit_code: 128 + signal for a death by signal; None if it was still running, so that only the log counts.
    """
    cause = find_cause(read_lines(log))
    if not cause.evidence:
        cause = replace(cause, evidence=f"{_ended(exit_code, log)}; its log names no cause")
    evidence = cause.evidence[:_LONGEST_EVIDENCE]
    if cause.group is not None:
        message = f"{cause.group.problem}. {cause.group.advice_for(service)}"
        return Failure(cause.group.kind, service, Phase.START, message, evidence, shortfall=_shortfall(cause.line_text))
    hint = find_hint(cause.line_text or evidence)
    message = _ended(exit_code, log) + (f": {hint.problem}. {hint.advice_for(service)}" if hint else "")
    return Failure(FailureKind.STARTUP_CRASH, service, Phase.START, message, evidence)


def explain_loss(service: str, log: str, exit_code: int) -> Failure:
    """Return why a service that was ready ended: `oom` if its log says so, else `service_lost`."""
    found = explain_exit(service, log, exit_code)
    oom = found.kind is FailureKind.STARTUP_OOM
    message = f"out of memory under load. {advice_for(found)}" if oom else found.message
    return replace(
        found,
        kind=FailureKind.OOM if oom else FailureKind.SERVICE_LOST,
        phase=Phase.LOAD,
        message=message.replace("while starting", "under load"),
    )


def advice_for(failure: Failure) -> str:
    """Return what to do about a failure, in one sentence, or an empty text if only its message can say."""
    text = read_line(failure.evidence).text
    group = next((group for group in GROUPS if failure.message.startswith(group.problem)), None) or find_group(text)
    if group is not None and (group.kind is failure.kind or failure.kind is FailureKind.OOM):
        return group.advice_for(failure.service)
    hint = find_hint(text) if failure.kind is FailureKind.STARTUP_CRASH else None
    return hint.advice_for(failure.service) if hint else DEFAULT_ADVICE.get(failure.kind, "")


def out_of_memory_lines(log: str) -> list[str]:
    """Return the lines in which a service reported that memory ran out. A service that stays up answers such a request with an error.
    Indented lines are a traceback's code."""
    lines = (line for line in read_lines(log) if line.loud and not line.text[:1].isspace())
    return [line.raw.strip()[:_LONGEST_EVIDENCE] for line in lines if (group := find_group(line.text)) and group.kind is FailureKind.STARTUP_OOM]


def _ended(exit_code: int | None, log: str) -> str:
    if exit_code is not None and exit_code > 128:
        return f"ended by signal {exit_code - 128} while starting" + _who_kills(exit_code - 128)
    ended = f"ended with exit code {exit_code} while starting"
    if child := _KILLED_CHILD.search(log):
        ended += f" because its engine was ended by signal {child[1]}" + _who_kills(int(child[1]))
    return ended


def _who_kills(signal: int) -> str:
    return " (SIGKILL, by a user or by the kernel's out-of-memory killer)" if signal == 9 else ""


def _shortfall(line: str) -> float:
    """Return the share of the need that was missing, from a log line with both numbers ("(3.1/23.5 GiB) … (0.5, 11.8 GiB)"), or 0."""
    free = re.search(rf"\({_GIB}/{_GIB} GiB\) on startup is less than .*?, {_GIB} GiB\)", line)
    if free and float(free[3]) > 0:
        return max(0.0, 1.0 - float(free[1]) / float(free[3]))
    kv = re.search(rf"\({_GIB}/{_GIB} GiB\) on kv cache allocation is less than requested memory for kv \({_GIB}(?:/{_GIB})? GiB\)", line)
    if kv and float(kv[3]) > 0:  # memory of that size exists, but is not free
        return max(0.0, 1.0 - float(kv[1]) / float(kv[3]))
    if kv and kv[4] and float(kv[4]) > 0:
        return max(0.0, -float(kv[3]) / float(kv[4]))
    needed = re.search(rf"\({_GIB} GiB KV cache is needed.*?\({_GIB} GiB\)", line)
    if needed and float(needed[1]) > 0:
        return max(0.0, 1.0 - float(needed[2]) / float(needed[1]))
    return 0.0
