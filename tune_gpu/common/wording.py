"""How numbers and failures are put into words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def counted(n: int, noun: str) -> str:
    """`1 round`, `2 rounds`, `0 rounds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that command a terminal, or change the order in which it shows a line."""


def plain(text: str) -> str:
    """The text with every control character written out (`\\x1b`): an artifact of somebody else must not hide or rewrite what is shown of it."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def failure_said(failure: Mapping[str, Any]) -> str:
    """Say in one line why a candidate failed: the message, and the decisive line of the log where there is one."""
    message, evidence = str(failure.get("message") or ""), str(failure.get("evidence") or "")
    joint = " Its log: " if message.endswith(".") else ": "
    said = f"{message}{joint}{evidence}" if evidence and evidence not in message else message
    return " ".join(said.split())
