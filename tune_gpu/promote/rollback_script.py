"""`rollback.sh`: for a hand without this program. It lies where only who installs may write, with what it puts back beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_gpu.common.atomic_files import write_whole

PROMOTIONS = "promotions"
"""In the install folder: what was done to the target, and what takes it back."""


def write_rollback(folder: Path, before: Mapping[str, str | None], commands: Sequence[str]) -> None:
    """Write the script and what it puts back.

    Args:
        folder: made for this user alone, because what was installed before may be nobody else's to read.
        before: destination -> text that is there; null where nothing is.
        commands: what restarts the units.
    """
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    lines = ["#!/bin/sh", "# Puts back what was there before this promotion was applied.", "set -eu", 'here=$(cd "$(dirname "$0")" && pwd)']
    for number, (name, text) in enumerate(before.items()):
        destination = shlex.quote(name)
        if text is None:
            lines.append(f"rm -f {destination}")
            continue
        copy = f"{number}-{Path(name).name}"
        write_whole(folder / "before" / copy, text, like=Path(name), follow=False)
        lines.append(f'cp "$here"/before/{shlex.quote(copy)} {destination}')
    write_whole(folder / "rollback.sh", "\n".join([*lines, *commands]) + "\n", follow=False)
    (folder / "rollback.sh").chmod(0o700)
