"""Make consoles for terminals, files and pipes."""

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
"""Columns of a file or a pipe. Rich's default of 80 would break or truncate names and numbers that a program or a reader searches for."""


class _Console(Console):
    """A console that escapes control characters, because it prints texts from artifacts, which may come from anybody."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


def console_of(stderr: bool = False, markup: bool = False) -> Console:
    """Return a console for standard output or error. COLUMNS sets its width. `markup` enables Rich's tags, which must not be used for logs
    and paths."""
    stream = sys.stderr if stderr else sys.stdout
    wide = not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit()
    return _Console(stderr=stderr, markup=markup, width=_WIDE if wide else None)


def tolerate_encoding() -> None:
    """Replace characters that the terminal or log cannot encode (`±`, `…`) by a question mark, instead of ending the run with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Program(click.Group):
    """The commands of a program."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        tolerate_encoding()
        return super().main(*arguments, **options)


class Finite(click.FloatRange):
    """A number in a range, without NaN and infinity, which Python parses as numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found
