"""How numbers are said."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """`1 round`, `2 rounds`, `0 rounds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
