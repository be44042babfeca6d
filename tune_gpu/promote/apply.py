"""Install, restart, watch; and back again, by itself, when it falls short."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_gpu.config import PromoteSettings
from tune_gpu.errors import UserError
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.installed import Change, Installation, check_writable, digest, text_of
from tune_gpu.promote.locks import units_locked
from tune_gpu.promote.rollback_script import PROMOTIONS, write_rollback
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.systemd import Systemd
from tune_gpu.promote.target import Target, TargetError
from tune_gpu.promote.watch import Expected, Unhealthy, Watcher

ORDER = ("whisper", "vllm")
"""Whisper first: vLLM takes its share of what is left."""


def folder_of(settings: PromoteSettings) -> Path:
    """Where configuration files are installed."""
    return Path(settings.install_dir).expanduser().resolve()


def target_of(settings: PromoteSettings) -> Target:
    """By its name. Raises UserError for another."""
    if settings.target == "systemd":
        return Systemd(Path(settings.systemd_dir).expanduser().resolve())
    if settings.target == "process":
        return ProcessSupervisor(folder_of(settings) / "supervised")
    raise UserError(f"promote.target={settings.target}: allowed are systemd, process")


@dataclass(frozen=True)
class RolledBack:
    """It was applied, fell short, and is taken back."""

    why: str
    serving: bool
    """Whether everything that answered before answers again."""
    then: str = ""
    """What does not, and why."""

    @property
    def all_said(self) -> str:
        """For people, where something does not."""
        return f"the files are as they were, but not all that served before answers: {self.then}"


@dataclass
class Deployer:
    """Changes one target.

    Args:
        target: starts and stops.
        units: service -> unit.
        installation: where files are and what was there.
        watcher: whether it serves.
        settings: `promote`.
        audit: is told every step.
    """

    target: Target
    units: Mapping[str, str]
    installation: Installation
    watcher: Watcher
    settings: PromoteSettings
    audit: Audit

    @classmethod
    def of(cls, settings: PromoteSettings, watcher: Watcher, audit: Audit) -> Deployer:
        """For the target that the settings name."""
        units = {"whisper": settings.whisper.unit, "vllm": settings.vllm.unit}
        return cls(target_of(settings), units, Installation(folder_of(settings)), watcher, settings, audit)

    def apply(
        self, run_id: str, experiment: str, files: Mapping[Path, str], reviewed: Mapping[str, str | None], expected: Expected
    ) -> RolledBack | None:
        """Install the files and restart; null if it serves.

        Args:
            run_id: whose winner it is.
            experiment: of the run.
            files: destination -> content.
            reviewed: destination -> hash of what was there when the promotion was written.
            expected: what must be seen of it.

        Raises:
            UserError: no permission, another promote at work, or a target that was changed since the files were written.
        """
        check_writable([*files, self._kept(run_id)])
        self.target.check_files(files)
        with self._locked():
            self._refuse_unfinished()
            for path, known in reviewed.items():
                if digest(text_of(Path(path))) != known:
                    raise UserError(
                        f"{path}: was changed since this promotion was written; run promote without --apply and look at the diff"
                    )
            healthy = [name for name in ORDER if self.watcher.is_healthy(name)]
            change = self.installation.begin(run_id, experiment, list(self.units.values()), list(files), self.settings, healthy)
            self.audit("apply", "begun", healthy_before=", ".join(healthy) or "none")
            try:
                write_rollback(self._kept(run_id), change.before, self.target.shell(list(self.units.values())))
                self.installation.put(files)
                self.audit("install", "ok", files=len(files))
                self.target.verify(files)
                self._restart(ORDER, expected)
                median = self.watcher.probe(expected)
                self.audit("probes", "ok", **({} if median is None else {"median_ms": round(median, 1)}))
            except (Unhealthy, TargetError, OSError) as error:
                return self._back(change, str(error))
            except BaseException as error:  # Ctrl-C, SIGTERM, a fault of ours: nothing is left halfway
                back = self._back(change, f"stopped by {type(error).__name__}")
                if isinstance(error, KeyboardInterrupt) and not back.serving:
                    raise KeyboardInterrupt(back.all_said) from error
                raise
            self.installation.mark(change, "applied")
            self.audit("apply", "ok")
        return None

    def rollback(self) -> tuple[Change, RolledBack]:
        """Undo the last change. Raises UserError if there is none."""
        with self._locked():
            change = self.installation.last
            if change is None:
                raise UserError(f"promote --rollback: nothing that promote installed is in force in {self.installation.folder}")
            check_writable([Path(path) for path in change.before])
            self.audit("rollback", "begun", of_run=change.run_id)
            return change, self._back(change, "asked for")

    def _kept(self, run_id: str) -> Path:
        """Where what takes this promotion back is kept."""
        return self.installation.folder / PROMOTIONS / run_id

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """What is installed, and the units: another promote may install into another folder for the same ones."""
        with self.installation.locked(), units_locked(self.target, list(self.units.values())):
            yield

    def _refuse_unfinished(self) -> None:
        last = self.installation.last
        if last is not None and last.status == "applying":
            raise UserError(f"the apply of run {last.run_id} at {last.at} was killed halfway; run promote --rollback first")

    def _restart(self, names: Sequence[str], expected: Expected) -> None:
        self.target.reload()
        deadline = time.monotonic() + self.settings.health_deadline_s
        for name in reversed(ORDER):
            self.target.stop(self.units[name])
            self.audit("stop", "ok", unit=self.units[name])
        for name in ORDER:
            self.target.start(self.units[name])
            self.audit("start", "ok", unit=self.units[name])
            if name in names:
                self.watcher.wait(name, self.target, expected, deadline)
                self.audit("health", "ok", service=name)

    def _back(self, change: Change, why: str) -> RolledBack:
        """An interrupt says that it is not done."""
        try:
            return self._put_back(change, why)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("the roll back is not finished: run promote --rollback") from error

    def _put_back(self, change: Change, why: str) -> RolledBack:
        """The files first, whatever the services do; then the services that served before."""
        self.audit("roll back", "begun", why=why)
        try:
            self.installation.put_back(change)
        except OSError as error:
            raise UserError(f"{error}; what was there before is not back; make room for it, then run promote --rollback") from error
        self.audit("restore", "ok", files=len(change.before))
        try:
            self._restart(change.healthy_before, Expected(None, None, None))
        except (Unhealthy, TargetError, OSError) as error:
            self.installation.mark(change, "rolled_back")
            self.audit("roll back", "files are back, the services are not", why=str(error))
            return RolledBack(why, False, str(error))
        self.installation.mark(change, "rolled_back")
        self.audit("roll back", "ok")
        return RolledBack(why, True)
