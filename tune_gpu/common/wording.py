"""Put numbers and failures into words."""

from __future__ import annotations

import re
from collections.abc import Sequence


def counted(n: int, noun: str) -> str:
    """Return the number with its noun: `1 round`, `2 rounds`, `0 rounds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return the names as a clause has them: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that control a terminal, or change the order in which it shows a line."""


def plain(text: str) -> str:
    """Return the text with every control character escaped (`\\x1b`). An artifact of somebody else must not hide or rewrite what a
    terminal shows."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def failure_text(message: str, evidence: str) -> str:
    """Return in one line why a candidate failed: the message, and the decisive line of the log if there is one."""
    joint = " Its log: " if message.endswith(".") else ": "
    text = f"{message}{joint}{evidence}" if evidence and evidence not in message else message
    return " ".join(text.split())


def duration_text(seconds: float) -> str:
    """Return a time in words: `40 s`, `4 min 12 s`, `25 min`, `3 h 5 min`. From ten minutes on seconds are left out."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes))
