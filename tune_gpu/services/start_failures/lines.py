"""Parse a line of a service's log: the process that wrote it, its level, and its text without the logger's prefix."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_COLOUR = re.compile(r"(?:\x1b|ESC|\^\[)?\[\d{1,3}(?:;\d{1,3})*m|\x1b\[[0-?]*[ -/]*[@-~]")
"""Terminal colours. A copied log has often lost their first character."""
_DATE = r"(?:\d{4}-)?\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?"
_LEVELS = r"DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL"
_PROCESS = r"\((?:[A-Za-z_][^()]*\s)?pid=\d+[^()]*\)"

_STAMPED = re.compile(rf"^(?P<before>.{{0,200}}?)\b(?P<level>{_LEVELS}) +{_DATE} +\[?(?P<origin>[\w./<>-]+:\d+)\] ?(?P<text>.*)$")
"""vLLM's own format in every version: `LEVEL 04-16 11:53:49 [core.py:387] …`, before 0.8 without the first bracket.

A prefix may precede it: VLLM_LOGGING_PREFIX, one process in brackets, or two when two processes wrote at once.
"""

_CARRIERS = (
    re.compile(r"^> ?"),  # quoted in an issue
    re.compile(r"^[a-z0-9][\w.-]* +\| "),  # docker compose
    re.compile(r"^[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \S+ [\w.@-]+\[\d+\]: "),  # journald
    re.compile(r"^\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z| ?[+-]\d\d:?\d\d)?\]?(?: +- +[\w.]+ +-(?= ))?(?: \[\d+\])?[\s|]?"),
)
"""Prefixes of a whole log, or text before the level in another logger's format."""
_PROCESS_PREFIX = re.compile(rf"^(?P<process>{_PROCESS}|\[rank\d+\]:?) ?")
_LEVEL_PREFIX = re.compile(
    rf"^ *\[?(?P<level>{_LEVELS})\b\]?(?=[\s:|-])"
    rf"(?:(?:\s+{_DATE})?\s+(?P<origin>\[?[\w./-]+\.py:\d+\]?)(?: --|:)?|:[\w.]+:| +- |:)?\s*(?P<text>.*)$"
)
"""uvicorn (`ERROR:    …`), Ray (`ERROR worker.py:12 -- …`), Python's own (`ERROR:name:…`), gunicorn (`[ERROR] …`) and similar."""
_GLOG_PREFIX = re.compile(r"^\[?(?P<level>[IWEF])\d{3,4} \d\d:\d\d:\d\d\.\d+ .*?\] ?(?P<text>.*)$")
"""Native code of torch and NCCL."""
_GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_QUIET = frozenset({"DEBUG", "INFO", "WARNING", "WARN"})
_LONGEST_JSON = 100_000


@dataclass(frozen=True)
class Line:
    """One line of a log."""

    raw: str
    """The line as written, without colours."""
    text: str
    """The text without the prefix; the indentation of the message is kept."""
    level: str = ""
    """Empty for output that was printed, not logged."""
    process: str = ""
    origin: str = ""
    """The place in the code that logged it. Lines of one record share it."""

    @property
    def loud(self) -> bool:
        """Return True if the line may report a failure. A warning is about something that was survived."""
        return self.level not in _QUIET


def read_lines(log: str) -> list[Line]:
    """Return the lines of a log, without those that only redraw a progress bar."""
    found: list[Line] = []
    for raw in re.split(r"\r\n|\n|\r", _COLOUR.sub("", log)):
        found.extend(_records(raw) if raw.startswith("{") and len(raw) <= _LONGEST_JSON else (read_line(raw),))
    return found


def read_line(raw: str) -> Line:
    """Parse one line, and remove its prefixes one after another."""
    if stamped := _STAMPED.match(raw):
        processes = re.findall(_PROCESS, stamped["before"])
        return Line(raw.rstrip(), stamped["text"].rstrip(), _plain(stamped["level"]), processes[-1] if processes else "", stamped["origin"])
    text, process = raw, ""
    for _ in range(6):  # no log has more prefixes
        before = text
        for carrier in _CARRIERS:
            text = carrier.sub("", text, count=1)
        if found := _PROCESS_PREFIX.match(text):
            text, process = text[found.end() :], found["process"]
        if text == before:
            break
    level = origin = ""
    if found := _LEVEL_PREFIX.match(text):
        level, origin, text = _plain(found["level"]), found["origin"] or "logger", found["text"]
    elif found := _GLOG_PREFIX.match(text):
        level, origin, text = _GLOG_LEVELS[found["level"]], "native", found["text"]
    return Line(raw.rstrip(), text.rstrip(), level, process, origin)


def _plain(level: str) -> str:
    return {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(level, level)


def _records(raw: str) -> Iterator[Line]:
    """Yield the lines of a JSON log record. Its message and traceback may have many."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    level = record.get("levelname") or record.get("level") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(level, str):
        yield read_line(raw)
        return
    process = f"({record.get('processName', '')} pid={record.get('process', record.get('pid', 0))})"
    parts = (record.get(key) for key in ("message", "msg", "exc_info", "exception", "stack_info"))
    for text in "\n".join(part for part in parts if isinstance(part, str)).split("\n"):
        yield Line(text.rstrip(), text.rstrip(), _plain(level.upper()), process, str(record.get("name", "")))
