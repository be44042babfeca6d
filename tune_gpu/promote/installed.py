"""The files on the target: put there whole, remembered as they were, and put back."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tune_gpu.artifacts import now
from tune_gpu.config import PromoteSettings, ServiceTarget
from tune_gpu.errors import UserError
from tune_gpu.promote.ownership import check_own
from tune_gpu.whole_files import write_whole

_OWN = ".tune-gpu"


def digest(content: str | None) -> str | None:
    """SHA-256 of a file's text; null for a file that is not there."""
    return None if content is None else hashlib.sha256(content.encode()).hexdigest()


def text_of(path: Path) -> str | None:
    """A file's text; null if there is none. Raises UserError for what cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def check_writable(paths: Sequence[Path]) -> None:
    """Raises UserError with the first folder that this user cannot write to, or that others can (files are replaced by rename: the folder is
    what matters)."""
    for folder in dict.fromkeys(path.parent for path in paths):
        check_own(str(folder), folder)
        if folder.resolve() != folder:
            raise UserError(f"{folder}: a symbolic link on the way leads to {folder.resolve()}. Put a folder in its place.")
        there = folder
        while not there.exists():
            there = there.parent
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            reason = error.strerror or "it cannot be written"
            raise UserError(
                f"{folder}: {there}: {reason}; run promote as a user that may, or set promote.install_dir, promote.systemd_dir"
            ) from error


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
    status: str = "applying"
    """`applying`, `applied`, `rolled_back`."""

    @property
    def promote(self) -> PromoteSettings:
        """Its settings; those that only another version of this program knows are passed over. Raises UserError for what are none."""
        try:
            known = _known(PromoteSettings, self.settings)
            known |= {name: _known(ServiceTarget, known[name]) for name in ("vllm", "whisper") if name in known}
            found: PromoteSettings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PromoteSettings), known))  # type: ignore[assignment]
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(f"the settings with which {self.run_id} was applied cannot be read ({said}); it must be put right by hand") from error
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
        """Only one at a time: a second gets a UserError that names the first. The kernel lets go of it when a process ends."""
        own = self.folder / _OWN
        check_own(f"promote.install_dir={self.folder}", own)
        try:
            own.mkdir(mode=0o700, parents=True, exist_ok=True)  # what was installed before is kept there, whoever may read it
            handle = os.open(own / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"promote.install_dir={self.folder}: {error.strerror or error}; run promote as a user that may write there"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
                raise UserError(f"another promote (process {holder or '?'}) is changing {self.folder} now; wait for it") from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            self._changes = self._read()
            yield
        finally:
            os.close(handle)

    def peek(self) -> Change | None:
        """The same as `last`, without the lock."""
        self._changes = self._read()
        return self.last

    @property
    def last(self) -> Change | None:
        """The last change that is in force, or that was left halfway."""
        return next((change for change in reversed(self._changes) if change.status in ("applying", "applied")), None)

    def begin(
        self, run_id: str, experiment: str, units: Sequence[str], paths: Sequence[Path], settings: PromoteSettings, healthy: Sequence[str]
    ) -> Change:
        """Remember what is there, on disk, before anything is changed."""
        before = {str(path): text_of(path) for path in paths}
        change = Change(run_id, experiment, now(), tuple(units), before, asdict(settings), tuple(healthy))
        self._changes.append(change)
        self._write()
        return change

    def put(self, files: Mapping[Path, str]) -> None:
        """Every file, each whole."""
        for path, content in files.items():
            write_whole(path, content, follow=False)

    def put_back(self, change: Change) -> None:
        """What was there before; doing it twice does no harm."""
        for name, content in change.before.items():
            path = Path(name)
            if content is None:
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    path.parent.rmdir()  # a drop-in folder that was made for it
            else:
                write_whole(path, content, follow=False)

    def mark(self, change: Change, status: str) -> None:
        """How it ended, on disk."""
        self._changes = [replace(other, status=status) if other == change else other for other in self._changes]
        self._write()

    def _read(self) -> list[Change]:
        path = self.folder / _OWN / "state.json"
        text = text_of(path)
        if text is None:
            return []
        check_own(str(path), path)  # it says what is put back, and where
        try:
            return [
                Change(**_known(Change, {**entry, "units": tuple(entry["units"]), "healthy_before": tuple(entry["healthy_before"])}))
                for entry in json.loads(text)["changes"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a state that this program wrote ({error}); what it held must be put right by hand") from error

    def _write(self) -> None:
        content = {"schema_version": 1, "changes": [asdict(change) for change in self._changes]}
        write_whole(self.folder / _OWN / "state.json", json.dumps(content, indent=2) + "\n")


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Without what another version of this program has written beside."""
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}
