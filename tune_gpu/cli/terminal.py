"""Where output goes: a terminal as wide as it is, or a file or pipe, which has no width."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tune_gpu.common.wording import plain

_WIDE = 240
"""Of what is no terminal: Rich would take 80 columns, and break or cut names and numbers that a program or a reader looks for."""


class _Console(Console):
    """A console on which no text commands the terminal: much of what is shown comes from artifacts, which may be anybody's."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


def console_of(stderr: bool = False, markup: bool = False) -> Console:
    """Standard output or error; COLUMNS is its width where it is set. With `markup` brackets are Rich's: not where logs and paths are told."""
    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit()
    return _Console(stderr=stderr, markup=markup, width=_WIDE if wide else None)


def tolerate_encoding() -> None:
    """A terminal or a log that has no `±` or `…` shows a question mark in its place: a character is no reason for a run to end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Program(click.Group):
    """The commands of a program."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        tolerate_encoding()
        return super().main(*arguments, **options)


class Finite(click.FloatRange):
    """A number in a range that NaN and infinity, which Python reads as numbers, are not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found
