"""The audit log: who did what to the target, and what came of it; one line a step, on disk before the next."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path
from typing import Any

from tune_gpu.artifacts import now
from tune_gpu.redaction import Redactor


class Audit:
    """`INSTALL_DIR/promotions/audit.jsonl`.

    Args:
        path: of the log; only ever appended to.
        about: in every line (`run_id`, `experiment` …).
        say: told the same in words.
    """

    def __init__(self, path: Path, about: dict[str, Any], say: Any = lambda _line: None) -> None:
        self._path, self._about, self._say, self._redactor = path, about, say, Redactor()
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, step: str, outcome: str = "ok", **more: Any) -> None:
        """One step, done or not; a service's last words may quote what it was given."""
        more = self._redactor.value(more)
        line = {"at": now(), "user": _user(), "pid": os.getpid(), **self._about, "step": step, "outcome": outcome, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        details = ", ".join(str(value) for value in more.values() if isinstance(value, (str, int, float)))
        self._say(f"{step}: {outcome}{f' ({details})' if details else ''}")


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
