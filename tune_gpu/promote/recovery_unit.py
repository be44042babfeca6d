"""The systemd unit that rolls an interrupted apply back at the next boot. It is installed only during an apply or a rollback."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tune_gpu.promote.staged import make_folder, sync_folder, write_durably

NAME = "tune-gpu-recover.service"
_WANTED_BY = "multi-user.target.wants"


def install(folder: Path, command: str, units: Sequence[str]) -> None:
    """Write the unit and enable it for the next boot, as `systemctl enable` does. Raise OSError.

    Args:
        folder: the folder of units.
        command: the unit's ExecStart, quoted for systemd.
        units: the units that start after it.
    """
    lines = [
        "# Written by tune-gpu promote during an apply or rollback, which removes it at its end.",
        "[Unit]",
        "Description=Roll back an interrupted tune-gpu promote",
        "After=remote-fs.target",
        f"Before={' '.join(units)}",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={command}",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    write_durably(folder / NAME, "\n".join(lines) + "\n")
    link = _link(folder)
    make_folder(link.parent)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(Path("..") / NAME)
    sync_folder(link.parent)


def remove(folder: Path) -> None:
    """Remove the unit again. Raise OSError."""
    link = _link(folder)
    if not link.is_symlink() and not (folder / NAME).exists():
        return
    link.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        link.parent.rmdir()  # created for the link
    (folder / NAME).unlink(missing_ok=True)
    sync_folder(folder)


def _link(folder: Path) -> Path:
    return folder / _WANTED_BY / NAME
