"""The systemd unit that puts an interrupted apply back at the next boot; it is there only while an apply or a rollback is at work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tune_gpu.promote.staged import make_folder, sync_folder, write_durably

NAME = "tune-gpu-recover.service"
_WANTED_BY = "multi-user.target.wants"


def install(folder: Path, command: str, units: Sequence[str]) -> None:
    """Write the unit and have the boot want it, as `systemctl enable` does. Raises OSError.

    Args:
        folder: where units are configured.
        command: its ExecStart, quoted for systemd.
        units: start after it.
    """
    lines = [
        "# Written by tune-gpu promote for the time of one apply or rollback, which removes it.",
        "[Unit]",
        "Description=Put back what an interrupted tune-gpu promote left",
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
    """Remove it again. Raises OSError."""
    link = _link(folder)
    if not link.is_symlink() and not (folder / NAME).exists():
        return
    link.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        link.parent.rmdir()  # made for it
    (folder / NAME).unlink(missing_ok=True)
    sync_folder(folder)


def _link(folder: Path) -> Path:
    return folder / _WANTED_BY / NAME
