"""The audit log: who did what to the target, with which outcome. Each step is one line, synced to disk before the next step."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.common.clock import now


class Audit:
    """`INSTALL_DIR/promotions/audit.jsonl`. Writing never raises: a full disk or a closed terminal must not stop a rollback.

    Args:
        path: the log, which is only appended to.
        about: fields of every line (`run_id`, `experiment` …).
        print_line: prints each step as text.
    """

    def __init__(self, path: Path, about: dict[str, Any], print_line: Callable[[str], Any] = lambda _line: None) -> None:
        self.path = path
        self._about, self._print_line, self._redactor = about, print_line, Redactor()
        self._failed = False

    def __call__(self, step: str, outcome: str = "ok", **more: Any) -> None:
        """Record one step and its outcome, without secrets: a service's last output may quote them."""
        try:
            more = self._redactor.value(more)
            self._write({"at": now(), "user": _user(), "pid": os.getpid(), **self._about, "step": step, "outcome": outcome, **more})
        except Exception as error:
            self._report(error)
        details = ", ".join(str(value) for value in more.values() if isinstance(value, (str, int, float)))
        # Rich raises SystemExit if the reader of a pipe has closed it.
        with contextlib.suppress(Exception, SystemExit):
            self._print_line(f"{step}: {outcome}{f' ({details})' if details else ''}")

    def _write(self, line: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            torn = file.seek(0, os.SEEK_END) > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"  # the last line is incomplete, because the disk was full
            file.write(b"\n" * torn + json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _report(self, error: Exception) -> None:
        """Print once that the log cannot be written. The promotion continues."""
        if not self._failed:
            self._failed = True
            with contextlib.suppress(Exception):
                print(f"{self.path}: the audit log cannot be written ({error}). The promotion continues without it.", file=sys.stderr, flush=True)


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
