"""Find the line of a log that explains why a service ended.

vLLM's processes depend on each other: a worker fails, its engine reports that a worker failed, the API server reports that the engine did,
and each prints a traceback. So most lines that look like an error refer to an earlier one, and an exception's first line may only introduce
the next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tune_gpu.services.start_failures.lines import Line
from tune_gpu.services.start_failures.sentences import Group, find_group
from tune_gpu.services.start_failures.tracebacks import Chain, Raised, read_exceptions

_POINTER = re.compile(
    r"(?:see|check|refer to|look (?:at|up)|inspect)\b.{0,40}\b(?:root cause|stack ?trace|traceback|(?:the|your|engine|server|worker|error) logs?\b)"
    r"|see (?:stack trace|root cause|[\w ]{0,30}) ?\(?above"
    r"|failed (?:core|frontend) proc\(s\)(?!: \{[^}]*: -\d)|(?:engine core|workerproc) initialization failed|engine process failed to start",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?:EngineCore|WorkerProc|Engine process|engine core) (?:failed to start|encountered (?:a fatal error|an issue)|hit an exception)"
    r"|Exception in worker \w+ while processing method \w+|Error executing method|Error in inspecting model architecture"
    r"|^Application startup failed",
    re.IGNORECASE,
)
"""vLLM's heading of the traceback that ended a process."""
_REPORTED = re.compile(r"Worker failed with error '(?P<words>.+?)', please check", re.DOTALL)
_VALIDATION = re.compile(r"\d+ validation errors? for [\w.\[\], ]+$")
_AFTERMATH = re.compile(
    r"^(?:[\w.]*\.)?(?:EngineDeadError|AsyncEngineDeadError|BrokenPipeError|EOFError|ConnectionResetError|CancelledError|KeyboardInterrupt"
    r"|ActorDiedError|ActorUnavailableError|RayActorError|ChildProcessError|DistNetworkError)\b"
    r"|^SystemExit(?:: \d+)?$|Connection (?:was )?(?:closed|reset) by|remote process exited|client socket has (?:failed|timed out)"
    r"|^RuntimeError: cancelled$|RPC call to \w+ timed out|died unexpectedly|^RuntimeError: Cancelled",
)
"""Errors of a process that another one, or a person, ended."""
_VAGUE = re.compile(r"NCCL error|unhandled (?:cuda|system) error|DistBackendError")
_PLUMBING = re.compile(
    r"^(?:requests|urllib3|httpx|httpcore|aiohttp|huggingface_hub|socket|subprocess|queue|_queue)\.|^(?:KeyError|StopIteration|ExceptionGroup|BaseExceptionGroup)\b"
    r"|^(?:ConnectionRefusedError|OSError: \[Errno 101\])|ExceptionGroup$"
)
"""Low-level errors, which say less than the errors that they cause."""
_HANDLER_BROKE = re.compile(r"^(?:AttributeError|NameError|UnboundLocalError)\b")
"""Errors of clean-up code that runs before the start has come as far as it expects."""
_COMPILER = re.compile(r"^(?:\S+: )?(?:\S+ )?fatal\s*: |: (?:fatal )?error: |^(?:clang|gcc|g\+\+|cc1plus|ptxas)\S*:? (?:fatal )?(?:error|fatal)\b|: cannot find -l|^/bin/\w*sh: .*not found$")
_BUILD = re.compile(r"^FAILED: (?P<what>\S)")
_NEEDED_COMPILER = re.compile(r"CalledProcessError|PTXAS error|[Nn]inja build failed|Error building extension|returned non-zero exit status|compilation failed")
_USAGE = re.compile(r"^[\w./ -]+: error: \S")
_THROWN = re.compile(r"^\s*what\(\):\s+\S")
"""Message of a C++ exception. The line above it has only its class."""
_KILLED_CHILD = re.compile(r"Failed core proc\(s\): \{[^}]*: -\d+[^}]*\}")
"""The only trace of an engine that a signal ended."""
_NATIVE = re.compile(
    r"^(?:terminate called|Fatal Python error|!!!!!!! Segfault|\*\*\* SIG\w+|Segmentation fault|Bus error|Aborted|Killed|Illegal instruction"
    r"|\w+\(\): (?:invalid|corrupted|unaligned|unsorted) |double free|corrupted )|symbol lookup error|error while loading shared libraries|Assertion .* failed\.?$"
    r"|cannot open shared object file|Could not load library|command not found|: No module named |^Unable to load any of \{"
)
"""Last output of native code, of the loader and of the shell."""
_EXITED = re.compile(r"Worker exit type: ")
_DIED = re.compile(r"died unexpectedly")
_NO_CAUSE = re.compile(r"^\s*(?:File \"|\^+|~|raise\b|warnings\.warn|During handling|The above exception|[-=+|^~ ]+$)|^\[[\d/]+\] |^ninja: |destroy_process_group|TORCHDYNAMO_VERBOSE")


@dataclass(frozen=True)
class Cause:
    """Reason why a service ended."""

    evidence: str
    """The decisive line; empty if there is none."""
    group: Group | None = None
    """Group of messages about memory or the port that it belongs to."""
    line_text: str = ""
    """The evidence without its prefix."""


@dataclass(frozen=True)
class _Log:
    lines: Sequence[Line]
    chains: list[Chain] = field(default_factory=list)


def find_cause(lines: Sequence[Line]) -> Cause:
    """Return the cause of the failure at the end of a log."""
    log = _Log(lines, read_exceptions(lines))
    chain = _first_chain(log)
    raised = _within(chain) if chain else None
    if raised is not None and chain is not None and not _is_aftermath(raised) and not _POINTER.search(_message(raised)):
        found = _sentence_in(_lines_of(chain)) or (_sentence_in(_loud(log)) if _VAGUE.search(_message(raised)) else None)
        if found is not None and found[1].by_chance:
            found = _more_particular(log, *found)
        return _cause(found[0], found[1]) if found else _evidence(log, chain, raised)
    if found := _sentence_in(_loud(log)):
        return _cause(*found)
    return _without_exception(log, raised)


def is_evidence(text: str) -> bool:
    """Return True if a line may serve as evidence: it is not empty, does not refer to another line and does not only introduce the next."""
    stripped = text.strip()
    return bool(stripped) and not stripped.endswith(":") and not _POINTER.search(stripped) and not _HEADER.search(stripped)


def _first_chain(log: _Log) -> Chain | None:
    """Return the chain of exceptions that ended the service: that of the process that first reported its failure, or the last, unless it
    refers to an earlier one."""
    real = [chain for chain in log.chains if not _points(chain) and not _is_aftermath(_within(chain))]
    if headed := [chain for chain in real if _HEADER.search(chain[0].header)]:
        return _of_first_process(headed)
    if not real or log.chains[-1] is real[-1]:
        return real[-1] if real else next((chain for chain in log.chains if not _points(chain)), None)
    # A server that logs errors of requests.
    logged = [chain for chain in real if (line := chain[0].lines[0][1]).level and "APIServer" not in line.process]
    return _of_first_process(logged) if logged else real[-1]


def _of_first_process(chains: list[Chain]) -> Chain:
    """Return the last chain of the process that failed first. The others failed because of it."""
    process = chains[0][0].lines[0][1].process
    return [chain for chain in chains if chain[0].lines[0][1].process == process][-1] if process else chains[0]


def _within(chain: Chain) -> Raised:
    """Return the most informative exception of a chain: one about memory, else the cause that a later one names, else the last."""
    about_memory = [(found[1].by_chance, number) for number, raised in enumerate(chain) if (found := _sentence_in(_lines_of([raised])))]
    if about_memory:
        return chain[min(about_memory)[1]]
    chosen = chain[0]
    for raised in chain[1:]:
        if _says_less(raised):
            continue
        if (raised.link == "during" and not _HANDLER_BROKE.search(_message(raised))) or _says_less(chosen) or (raised.link == "part" and _is_group(chosen)):
            chosen = raised
    return chosen


def _is_group(raised: Raised) -> bool:
    return "Group" in raised.name or raised.short_name.startswith("RayTask") or _message(raised).rstrip().endswith(":")


def _says_less(raised: Raised) -> bool:
    message = _message(raised)
    return bool(_PLUMBING.search(message) or _PLUMBING.search(raised.name) or _POINTER.search(message)) or _is_aftermath(raised) or _is_group(raised)


def _points(chain: Chain) -> bool:
    return all(_POINTER.search(_message(raised)) for raised in chain)


def _is_aftermath(raised: Raised) -> bool:
    return bool(_AFTERMATH.search(_message(raised)))


def _message(raised: Raised) -> str:
    """Return the first line of an exception, beginning with its class."""
    return f"{raised.name}: {raised.words}" if raised.words else raised.name


def _lines_of(chain: Chain) -> list[tuple[int, Line]]:
    return [numbered for raised in chain for numbered in raised.lines]


def _loud(log: _Log) -> list[tuple[int, Line]]:
    return [(number, line) for number, line in enumerate(log.lines) if line.loud and _unindented(line.text) and not _POINTER.search(line.text)]


def _unindented(text: str) -> bool:
    """Return True for a line without indentation, or of a C++ exception. A traceback's lines of code are indented."""
    return not text[:1].isspace() or text.lstrip().startswith("what():")


def _sentence_in(lines: list[tuple[int, Line]]) -> tuple[Line, Group] | None:
    """Return the most specific message about memory in these lines."""
    found = [(line, group) for _, line in lines if (group := find_group(line.text))]
    # Ray's class only repeats the name of the cause.
    return min(found, key=lambda one: (one[1].by_chance, "RayTaskError(" in one[0].text), default=None)


def _more_particular(log: _Log, line: Line, group: Group) -> tuple[Line, Group]:
    """Prefer vLLM's own message that the weights did not fit to torch's exception."""
    return line, next((other for _, each in _loud(log) if (other := find_group(each.text)) and other.kind is group.kind and not other.by_chance), group)


def _cause(line: Line, group: Group | None = None, more: str = "") -> Cause:
    return Cause(line.raw.strip() + more, group, line.text.strip() + more)


def _evidence(log: _Log, chain: Chain, raised: Raised) -> Cause:
    """Return the line of an exception that gives the reason."""
    first = raised.lines[0][1]
    if _NEEDED_COMPILER.search(_message(raised)) and (compiler := _compiler_line(log, chain)):
        return _cause(compiler)
    rest = [line for _, line in raised.lines[1:] if line.text.strip()]
    if _VALIDATION.search(first.text):
        return _cause(first, more="".join(f": {text}" for line in _reason(rest) if (text := _without_pointer(line.text.strip()))))
    if not raised.words:  # it has no message, or one that begins on the next line
        heading = raised.lines[1][1].text.strip() if len(raised.lines) > 1 else ""
        begun = first.text.rstrip().endswith(":") and is_evidence(heading)
        return Cause(first.raw.strip().rstrip(": ") + (f": {heading}" if begun else ""), None, _message(raised) + (f": {heading}" if begun else ""))
    last = next((after for before, after in pairwise(rest) if before.text.strip() == "Last error:"), None)
    if last is not None:
        return _cause(first, more=f": {_without_pointer(last.text.strip())}")
    if is_evidence(first.text):
        return _cause(first)
    others = [line for line in rest if is_evidence(line.text) and not _NO_CAUSE.search(line.text)]
    others += [line for other in reversed(chain) if other is not raised for _, line in other.lines[:1] if is_evidence(line.text)]
    return _cause(others[0]) if others else Cause(first.raw.strip().rstrip(": "), None, first.text.strip().rstrip(": "))


def _without_pointer(text: str) -> str:
    """Return the part of a line before it refers to another place."""
    pointer = _POINTER.search(text)
    return text[: text.rfind(". ", 0, pointer.start()) + 1] if pointer else text.rstrip(":")


def _reason(rest: list[Line]) -> list[Line]:
    """Return pydantic's reason, and the field that it concerns."""
    if rest and not rest[0].text.startswith("  ") and len(rest) > 1:
        return rest[:2]
    return rest[:1]


def _compiler_line(log: _Log, chain: Chain) -> Line | None:
    """Return the error of the compiler or linker. It is printed before the exception, or repeated in it."""
    own = [line for _, line in _lines_of(chain)]
    for lines in (own, [line for line in log.lines if line.loud]):
        if output := next((line for line in lines if _COMPILER.search(line.text) and "collect2: " not in line.text), None):
            return output
    return next((line for line in own if _BUILD.search(line.text)), None)


def _without_exception(log: _Log, aftermath: Raised | None) -> Cause:
    """Return the evidence where no exception has it: the command line's complaint, native code's last output, else the last line logged
    or printed."""
    loud = [line for line in log.lines if line.loud and is_evidence(line.text)]
    for pattern in (_USAGE, _THROWN, _NATIVE, _EXITED, _DIED):
        if chosen := next((line for line in loud if pattern.search(line.text)), None):
            return _cause(chosen)
    if reported := next((found for line in log.lines if (found := _REPORTED.search(line.text))), None):
        return Cause(reported["words"].strip(), find_group(reported["words"]), reported["words"].strip())
    if aftermath is not None and not _POINTER.search(_message(aftermath)) and is_evidence(aftermath.lines[0][1].text):
        return _cause(aftermath.lines[0][1])
    logged = [line for line in loud if line.level and _unindented(line.text)]
    killed = next((found for line in log.lines if (found := _KILLED_CHILD.search(line.text))), None)
    if killed and not logged:
        return Cause(killed[0], None, killed[0])
    printed = [line for line in log.lines if is_evidence(line.text) and _unindented(line.text) and not _NO_CAUSE.search(line.text)]
    return _cause((logged or printed)[-1]) if logged or printed else Cause("")
