"""The files on the target: install them, remember the previous ones, and restore those."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tune_gpu.common import outside_files
from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.common.places import existing, write_error
from tune_gpu.config.schema import PromoteSettings, ServiceTarget
from tune_gpu.config.service_settings import PAIR
from tune_gpu.metrics import DEFAULT_PAIR
from tune_gpu.promote.locks import exclusive
from tune_gpu.promote.ownership import check_own
from tune_gpu.promote.places import Place, places_of_pair
from tune_gpu.promote.staged import discard, make_folder, sync_folder, write_durably

_OWN = ".tune-gpu"
_STATE, _JOURNAL = "state.json", "journal"
_AFTER = "state.rolled_back.json"
"""The state after a rollback, written in advance. It becomes `state.json` by a rename."""


def digest(content: str | bytes | None) -> str | None:
    """Return the SHA-256 of a file's content, or None for a missing file."""
    return None if content is None else hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def text_of(path: Path) -> str | None:
    """Return a file's text, or None if the file is missing. Raise UserError if it cannot be read."""
    try:
        return outside_files.read_text(path, outside_files.INSTALLED)
    except outside_files.NotThere:
        return None


def check_writable(paths: Sequence[Path]) -> None:
    """Raise UserError for the first folder that this user cannot write, or that others can write. Files are replaced by rename, so the
    folder's permissions matter."""
    for folder in dict.fromkeys(path.parent for path in paths):
        check_own(str(folder), folder)
        if folder.resolve() != folder:
            raise UserError(f"{folder}: a symbolic link in this path leads to {folder.resolve()}. Replace the link by a folder.")
        there = existing(folder)
        if error := write_error(there):
            reason = error.strerror or "it cannot be written"
            raise UserError(
                f"{folder}: {there}: {reason}. Run promote as a user that may write it, or set promote.install_dir and promote.systemd_dir."
            ) from error


class Status(StrEnum):
    """Progress of a change."""

    APPLYING = "applying"
    APPLIED = "applied"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"

    @property
    def unfinished(self) -> bool:
        """Return whether the change has not ended. If no process is working on it, it was interrupted."""
        return self in (Status.APPLYING, Status.ROLLING_BACK)


@dataclass(frozen=True)
class Change:
    """Record of one installation."""

    run_id: str
    experiment: str
    at: str
    units: tuple[str, ...]
    before: Mapping[str, str | None]
    """Path -> previous text; None if there was no file."""
    settings: Mapping[str, Any]
    """The settings `promote` at that time, because a rollback needs the same target."""
    healthy_before: tuple[str, ...] = ()
    """Services that answered before the change."""
    running_before: tuple[str, ...] | None = None
    """Services whose unit ran before the change; None if an older version applied it, which did not record that."""
    status: Status = Status.APPLYING
    services: tuple[Place, ...] = ()
    """Where the services run, in the order of starting; empty if an older version applied it, which knew the default pair alone."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Return where the services run, in the order of starting. Raise UserError if its settings are invalid."""
        return self.services or places_of_pair(self.promote, tuple(DEFAULT_PAIR))

    @property
    def promote(self) -> PromoteSettings:
        """Return the change's settings, without those that this version does not know. Raise UserError if they are invalid."""
        try:
            known = _known(PromoteSettings, self.settings)
            known |= {name: _known(ServiceTarget, known[name]) for name in PAIR if name in known}
            known |= {"services": {name: _known(ServiceTarget, target) for name, target in known.get("services", {}).items()}}
            found: PromoteSettings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PromoteSettings), known))  # type: ignore[assignment]
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"the settings with which {self.run_id} was applied cannot be read ({reason}). Restore the previous files by hand.") from error
        return found


@dataclass
class Installation:
    """The install folder of one target. It is locked during a change.

    Args:
        folder: `promote.install_dir`.
    """

    folder: Path
    _changes: list[Change] = field(default_factory=list)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder. Raise UserError, naming the process that holds the lock, if it is taken. The kernel releases the lock when a
        process ends."""
        own = self.folder / _OWN
        check_own(f"promote.install_dir={self.folder}", own)
        try:
            make_folder(own, 0o700)  # it has copies of the previous files, which may be readable by their owner only
        except OSError as error:
            raise UserError(
                f"promote.install_dir={self.folder}: {error.strerror or error}. Run promote as a user that may write there."
            ) from error
        with exclusive(own / "lock", f"promote.install_dir={self.folder}", str(self.folder), 0o644):
            self._changes = self._read()
            yield

    def peek(self) -> Change | None:
        """Return `last`, read without the lock."""
        self._changes = self._read()
        return self.last

    @property
    def last(self) -> Change | None:
        """Return the last change that is in force or was interrupted, or None."""
        return next((change for change in reversed(self._changes) if change.status != Status.ROLLED_BACK), None)

    @property
    def latest(self) -> Change | None:
        """Return the last change, whatever its status, or None."""
        return self._changes[-1] if self._changes else None

    def holder(self) -> str | None:
        """Return the id of the process that is changing the target now, or None if there is none or this user may not see it."""
        try:
            inode = (self.folder / _OWN / "lock").stat().st_ino
            locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]  # read without taking the lock
        except OSError:
            return None
        return next((lock[4] for lock in locks if lock[1] == "FLOCK" and lock[5].rpartition(":")[2] == str(inode)), None)

    def begin(self, change: Change) -> None:
        """Record the previous files on disk before anything is changed. If that fails, raise OSError; then nothing was begun.

        The state after a rollback is written at the same time, so that a full disk cannot prevent it later.
        """
        write_durably(self.folder / _OWN / _JOURNAL, "")
        self._write([*self._changes, replace(change, status=Status.ROLLED_BACK)], _AFTER)
        self._write([*self._changes, change], _STATE)
        self._changes.append(change)

    def begin_back(self, change: Change) -> Change:
        """Record on disk that a change (in force or interrupted) is being rolled back. Return the change with its new status."""
        self._write(self._with(change, Status.ROLLED_BACK), _AFTER)
        self.mark(change, Status.ROLLING_BACK)
        return replace(change, status=Status.ROLLING_BACK)

    def intend(self, step: str) -> None:
        """Record a step before it is done. Raise OSError."""
        with (self.folder / _OWN / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{now()} {step}\n")
            file.flush()
            os.fsync(file.fileno())

    def intended(self) -> list[str]:
        """Return the recorded steps of the last change, oldest first. Raise OSError."""
        lines = (self.folder / _OWN / _JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
        return [line.partition(" ")[2] for line in lines]

    def mark(self, change: Change, status: Status) -> None:
        """Record on disk how the change ended. Raise OSError."""
        own = self.folder / _OWN
        changes = self._with(change, status)
        if status == Status.ROLLED_BACK and (own / _AFTER).exists():
            (own / _AFTER).replace(own / _STATE)
            sync_folder(own)
        else:
            self._write(changes, _STATE)
        self._changes = changes

    def tidy(self, paths: Iterable[Path]) -> None:
        """Remove files that a finished change no longer needs. Leaving them does no harm."""
        for path in paths:
            discard(path)
        with contextlib.suppress(OSError):
            (self.folder / _OWN / _AFTER).unlink(missing_ok=True)

    def _with(self, change: Change, status: Status) -> list[Change]:
        """Return the changes with a new status of this change, the last one that has not been rolled back."""
        number = max(i for i, other in enumerate(self._changes) if other.status != Status.ROLLED_BACK and other.run_id == change.run_id)
        return [replace(other, status=status) if i == number else other for i, other in enumerate(self._changes)]

    def _read(self) -> list[Change]:
        path = self.folder / _OWN / _STATE
        text = text_of(path)
        if text is None:
            return []
        check_own(str(path), path)  # it decides which files are restored, and where
        try:
            return [_change_of(entry) for entry in json.loads(text)["changes"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: not written by this program ({error}). Restore the previous files by hand.") from error

    def _write(self, changes: Sequence[Change], name: str) -> None:
        content = {"schema_version": 1, "changes": [asdict(change) for change in changes]}
        write_durably(self.folder / _OWN / name, json.dumps(content, indent=2) + "\n")


def _change_of(entry: Mapping[str, Any]) -> Change:
    ran = entry.get("running_before")
    read = {
        "units": tuple(entry["units"]),
        "healthy_before": tuple(entry["healthy_before"]),
        "running_before": None if ran is None else tuple(ran),
        "status": Status(entry["status"]),
        "services": tuple(Place(**_known(Place, each)) for each in entry.get("services", ())),
    }
    return Change(**_known(Change, {**entry, **read}))


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the fields that this version knows."""
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}
