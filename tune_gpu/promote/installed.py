"""The files on the target: put there whole, remembered as they were, and put back."""

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
from tune_gpu.promote.locks import exclusive
from tune_gpu.promote.ownership import check_own
from tune_gpu.promote.staged import discard, make_folder, sync_folder, write_durably

_OWN = ".tune-gpu"
_STATE, _JOURNAL = "state.json", "journal"
_AFTER = "state.rolled_back.json"
"""The state as it will be after a rollback: `state.json` once it is renamed."""


def digest(content: str | bytes | None) -> str | None:
    """Return the SHA-256 of a file's content, or None for a file that is not there."""
    return None if content is None else hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def text_of(path: Path) -> str | None:
    """Return a file's text, or None if there is none. Raise UserError if it cannot be read."""
    try:
        return outside_files.read_text(path, outside_files.INSTALLED)
    except outside_files.NotThere:
        return None


def check_writable(paths: Sequence[Path]) -> None:
    """Raise UserError for the first folder that this user cannot write to, or that others can (files are replaced by rename: the folder is
    what matters)."""
    for folder in dict.fromkeys(path.parent for path in paths):
        check_own(str(folder), folder)
        if folder.resolve() != folder:
            raise UserError(f"{folder}: a symbolic link on the way leads to {folder.resolve()}. Put a folder in its place.")
        there = existing(folder)
        if error := write_error(there):
            reason = error.strerror or "it cannot be written"
            raise UserError(
                f"{folder}: {there}: {reason}; run promote as a user that may, or set promote.install_dir, promote.systemd_dir"
            ) from error


class Status(StrEnum):
    """How far a change has come."""

    APPLYING = "applying"
    APPLIED = "applied"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"

    @property
    def unfinished(self) -> bool:
        """Return whether an end is still to come; where nobody works on it, it was cut off."""
        return self in (Status.APPLYING, Status.ROLLING_BACK)


@dataclass(frozen=True)
class Change:
    """One installation, as it is remembered."""

    run_id: str
    experiment: str
    at: str
    units: tuple[str, ...]
    before: Mapping[str, str | None]
    """Path -> text that was there; null where nothing was."""
    settings: Mapping[str, Any]
    """`promote` as it was then: who takes it back needs the same target."""
    healthy_before: tuple[str, ...] = ()
    """Services that answered before it."""
    running_before: tuple[str, ...] | None = None
    """Services whose unit ran before it; null where the version that applied it has not written that down."""
    status: Status = Status.APPLYING

    @property
    def promote(self) -> PromoteSettings:
        """Return its settings, without those that only another version knows. Raise UserError if they are invalid."""
        try:
            known = _known(PromoteSettings, self.settings)
            known |= {name: _known(ServiceTarget, known[name]) for name in ("vllm", "whisper") if name in known}
            found: PromoteSettings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PromoteSettings), known))  # type: ignore[assignment]
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"the settings with which {self.run_id} was applied cannot be read ({reason}); it must be put right by hand") from error
        return found


@dataclass
class Installation:
    """The install folder of one target, locked while it is changed.

    Args:
        folder: `promote.install_dir`.
    """

    folder: Path
    _changes: list[Change] = field(default_factory=list)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder. Raise UserError that names the process that holds it. The kernel releases the lock when a process ends."""
        own = self.folder / _OWN
        check_own(f"promote.install_dir={self.folder}", own)
        try:
            make_folder(own, 0o700)  # what was installed before is kept there, whoever may read it
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
        """Return the last change that is in force or was left halfway, or None."""
        return next((change for change in reversed(self._changes) if change.status != Status.ROLLED_BACK), None)

    @property
    def latest(self) -> Change | None:
        """Return the last change, whatever became of it, or None."""
        return self._changes[-1] if self._changes else None

    def holder(self) -> str | None:
        """Return the id of the process that is changing the target now, or None if there is none or this user may not know."""
        try:
            inode = (self.folder / _OWN / "lock").stat().st_ino
            locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]  # asked without a lock of our own
        except OSError:
            return None
        return next((lock[4] for lock in locks if lock[1] == "FLOCK" and lock[5].rpartition(":")[2] == str(inode)), None)

    def begin(self, change: Change) -> None:
        """Record on disk what is there, before anything is changed. Raise OSError if that fails; then nothing was begun.

        The state after a rollback is written along with it: a full disk cannot keep that back later.
        """
        write_durably(self.folder / _OWN / _JOURNAL, "")
        self._write([*self._changes, replace(change, status=Status.ROLLED_BACK)], _AFTER)
        self._write([*self._changes, change], _STATE)
        self._changes.append(change)

    def begin_back(self, change: Change) -> Change:
        """Record on disk that a change, in force or left halfway, is being taken back; return it with its new status."""
        self._write(self._with(change, Status.ROLLED_BACK), _AFTER)
        self.mark(change, Status.ROLLING_BACK)
        return replace(change, status=Status.ROLLING_BACK)

    def intend(self, step: str) -> None:
        """Write down a step before it is done. Raise OSError."""
        with (self.folder / _OWN / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(f"{now()} {step}\n")
            file.flush()
            os.fsync(file.fileno())

    def intended(self) -> list[str]:
        """Return the steps of the last change, oldest first. Raise OSError."""
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
        """Remove what an end leaves over; without it nothing is wrong."""
        for path in paths:
            discard(path)
        with contextlib.suppress(OSError):
            (self.folder / _OWN / _AFTER).unlink(missing_ok=True)

    def _with(self, change: Change, status: Status) -> list[Change]:
        """Return the changes with the new status of this one, the last that has not been rolled back."""
        number = max(i for i, other in enumerate(self._changes) if other.status != Status.ROLLED_BACK and other.run_id == change.run_id)
        return [replace(other, status=status) if i == number else other for i, other in enumerate(self._changes)]

    def _read(self) -> list[Change]:
        path = self.folder / _OWN / _STATE
        text = text_of(path)
        if text is None:
            return []
        check_own(str(path), path)  # it says what is put back, and where
        try:
            return [_change_of(entry) for entry in json.loads(text)["changes"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: not a state that this program wrote ({error}); what it held must be put right by hand") from error

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
    }
    return Change(**_known(Change, {**entry, **read}))


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows."""
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}
