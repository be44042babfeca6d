"""Write `rollback.sh`, for a rollback without this program. The script and the files that it restores are in a folder that only the
installing user may write."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_gpu.common.atomic_files import write_whole

PROMOTIONS = "promotions"
"""Folder in the install folder: the audit log, and the files for rollbacks."""


def write_rollback(folder: Path, before: Mapping[str, str | None], commands: Sequence[str]) -> None:
    """Write the script and the files that it restores.

    Args:
        folder: created readable by this user only, because the previous files may be private.
        before: destination -> present text; None if there is no file.
        commands: shell commands that restart the units.
    """
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    lines = ["#!/bin/sh", "# Restores the files from before this promotion was applied.", "set -eu", 'here=$(cd "$(dirname "$0")" && pwd)']
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
