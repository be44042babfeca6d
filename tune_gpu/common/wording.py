"""How numbers and failures are put into words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def counted(n: int, noun: str) -> str:
    """`1 round`, `2 rounds`, `0 rounds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def failure_said(failure: Mapping[str, Any]) -> str:
    """Say in one line why a candidate failed: the message, and the decisive line of the log where there is one."""
    message, evidence = str(failure.get("message") or ""), str(failure.get("evidence") or "")
    said = f"{message.removesuffix('.')}: {evidence}" if evidence and evidence not in message else message
    return " ".join(said.split())
