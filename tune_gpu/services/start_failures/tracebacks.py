"""Parse the exceptions in a log, with their messages, and which of them caused which."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tune_gpu.services.start_failures.lines import Line

_TRACEBACK = re.compile(r"(?:^|[\s:])Traceback \(most recent call last\):$")
_CAUSED = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"
_CLASS = r"[A-Za-z_][\w.]*(?:\.<locals>\.\w+)?(?:\(\w+\))?"
"""A class with its modules. Ray adds the class of the cause in brackets."""
_NAMED = re.compile(rf"^(?P<name>{_CLASS})(?::(?: (?P<words>.*))?)?$")
"""The last line of a traceback, whatever the class is called."""
_BARE = re.compile(
    r"^(?P<name>(?:[A-Za-z_]\w*\.)*(?:\w*(?:Error|Exception|ExceptionGroup)|\w+(?:Exit|Interrupt|Failed|Timeout|OutOfResources))(?:\(\w+\))?)(?::(?: (?P<words>.*))?)?$"
)
"""An exception without a traceback. Only its name identifies it."""
_SYNTAX = frozenset({"try", "else", "finally", "except", "if", "for", "while", "with", "def", "class", "File", "Killed"})
_GROUP = re.compile(r"^\s*(?:\+-\+?-*|[+|] ?)(?: ?\d+ -+|-+$)?")
"""The bars that Python draws around an exception group."""
_ENDS_MESSAGE = re.compile(r"^(?:Process [\w-]+:$|Exception ignored |Exception in thread |Fatal Python error|\[rank\d+\])")
_SURVIVED = re.compile(r"^(?:Exception ignored |--- Logging error ---|Error in atexit|Exception in thread .*[Uu]sage)")
"""Headings of tracebacks that ended nothing."""
_LONGEST_MESSAGE = 400


@dataclass
class Raised:
    """One exception as it was printed: its class, and the lines of its message."""

    name: str
    lines: list[tuple[int, Line]]
    """Index of each line in the log. The first has the class."""
    header: str = ""
    """The line above its traceback, as in "EngineCore failed to start."."""
    link: str = ""
    """Relation to the exception before it: `cause`, `during`, `part`; empty for the first."""

    @property
    def words(self) -> str:
        """Return the text of its first line after the class."""
        found = _NAMED.match(self.lines[0][1].text.strip()) or _BARE.match(self.lines[0][1].text.strip())
        return (found["words"] or "").strip() if found else self.lines[0][1].text.strip()

    @property
    def short_name(self) -> str:
        """Return the class without its modules."""
        return self.name.partition("(")[0].rpartition(".")[2]


Chain = list[Raised]
"""Exceptions that caused one another, in order."""


@dataclass
class _Reader:
    """Read the lines of one process and one place in order."""

    chains: list[Chain] = field(default_factory=list)
    _state: str = "idle"  # idle, frames or message
    _header: str = ""
    _link: str = ""
    _last: str = ""
    _traced: bool = False
    """Whether the current exception has a traceback. A logger's record has one, so a second is part of its message."""

    def read(self, index: int, line: Line) -> None:
        text, grouped = _without_bars(line.text)
        stripped = text.strip()
        if _TRACEBACK.search(stripped):
            if self._state == "message" and not self._link and (grouped or self._continues()):
                self._link = "part"
            before = _TRACEBACK.sub("", stripped).strip() or self._last
            self._state, self._header = "frames", before if not self._link else self._header
        elif stripped in (_CAUSED, _DURING):
            self._state, self._link = "idle", "cause" if stripped == _CAUSED else "during"
        elif self._state == "frames":
            found = _NAMED.match(text)
            if found and _is_class(found["name"]):
                self._begin(found["name"], index, line)
                self._traced = True
        elif (found := _BARE.match(text)) and not (self._traced and line.level and self._state == "message" and not grouped and not self._continues()):
            if self._state == "message" and not self._link and (grouped or self._continues()):
                self._link = "part"
            elif not self._link:
                self._header = self._last if self._state == "idle" else ""
            self._begin(found["name"], index, line)
        elif self._state == "message":
            self._continue_message(index, line, stripped)
        if stripped:
            self._last = stripped

    def _begin(self, name: str, index: int, line: Line) -> None:
        raised = Raised(name, [(index, line)], self._header, self._link)
        if self._link and self.chains:
            self.chains[-1].append(raised)
        else:
            self.chains.append([raised])
        self._state, self._link, self._traced = "message", "", False

    def _continue_message(self, index: int, line: Line, stripped: str) -> None:
        message = self.chains[-1][-1].lines
        if len(message) >= _LONGEST_MESSAGE or _ENDS_MESSAGE.match(stripped):
            self._state, self._header = "idle", ""
        else:
            message.append((index, line))

    def _continues(self) -> bool:
        """Return True if an exception inside another's message is what that one reports."""
        raised = self.chains[-1][-1]
        texts = [line.text.strip() for _, line in raised.lines if line.text.strip()]
        return texts[0].endswith(":") or texts[-1].endswith(":") or "Group" in raised.name or raised.short_name.startswith("RayTask")


def read_exceptions(lines: Sequence[Line]) -> list[Chain]:
    """Return every chain of exceptions that may have ended a process, ordered by its first line."""
    readers: dict[tuple[str, str, str], _Reader] = defaultdict(_Reader)
    for index, line in enumerate(lines):
        readers[line.process, line.level, line.origin].read(index, line)
    chains = [chain for (_, level, _), reader in readers.items() if Line("", "", level).loud for chain in reader.chains]
    return sorted((chain for chain in chains if not _SURVIVED.match(chain[0].header)), key=lambda chain: chain[0].lines[0][0])


def _without_bars(text: str) -> tuple[str, bool]:
    """Return a line of an exception group without its bars, and whether it had any."""
    if not re.match(r"^\s*(?:\| |\|$|\+ |\+-)", text):
        return text, False
    return _GROUP.sub("", text, count=1), True


def _is_class(name: str) -> bool:
    last = name.partition("(")[0].rpartition(".")[2]
    return name not in _SYNTAX and ("." in name or last[:1].isupper() or last.lower().endswith("error"))
