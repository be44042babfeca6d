"""Restore the previous state: the files, then the services that ran, one by one. A failure of one part does not stop the others."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import Interrupts
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.installed import Change, Installation, Status
from tune_gpu.promote.places import Place
from tune_gpu.promote.staged import put_back, stage
from tune_gpu.promote.target import Target
from tune_gpu.promote.watch import Unhealthy, Watcher

_ATTEMPTS = 2
"""Attempts per part. A failed step is tried once more, after the others."""


@dataclass(frozen=True)
class RolledBack:
    """The result of a rollback."""

    why: str
    serving: bool
    """Whether all services that answered before answer again."""
    then: str = ""
    """Which services do not answer, and why."""

    @property
    def not_serving_message(self) -> str:
        """Return the message for the user if a service does not answer."""
        return f"the previous files were restored, but not all services that answered before do: {self.then}"


@dataclass
class Restorer:
    """Rolls one change back.

    Args:
        target: starts and stops the services.
        places: of the services, in the order of starting.
        installation: the installed files and the previous ones; locked.
        watcher: checks whether the services serve.
        audit: records every step.
        interrupts: holds signals. A signal ends only the wait for a service.
        recovery: the command that restores the files at the next boot.
    """

    target: Target
    places: Sequence[Place]
    installation: Installation
    watcher: Watcher
    audit: Audit
    interrupts: Interrupts
    recovery: Sequence[str]
    _failures: dict[str, str] = field(default_factory=dict)
    """Step -> why it failed."""

    def guard(self, change: Change) -> None:
        """Make the next boot roll this change back. Raise OSError."""
        self.target.guard(self.recovery, change.units)

    def stage(self, change: Change) -> None:
        """Write the previous content beside each file, ready for a rename. Raise OSError."""
        for name, content in change.before.items():
            if content is not None:
                stage(Path(name), content, old=True)

    def take_back(self, change: Change, why: str, *, restart: bool = True) -> RolledBack:
        """Roll back a change that is in force or was interrupted. Raise UserError if that cannot begin (no disk space); then nothing was
        changed."""
        try:
            self._journal("stage the previous files")
            self.stage(change)
            self._journal("guard")
            self.guard(change)
            self._journal("begin the rollback")
            touched = self._touched(change)
            change = self.installation.begin_back(change)
        except Exception as error:
            if not change.status.unfinished:
                self.tidy(change)
                raise UserError(f"the rollback was not begun: {error}. Nothing was changed.") from error
            touched = True
        return self.put_back(change, why, touched=touched, restart=restart)

    def put_back(self, change: Change, why: str, *, touched: bool | None = None, restart: bool = True) -> RolledBack:
        """Restore the state from before a change that is in progress.

        Args:
            change: the change, with the previous files.
            why: the reason for the rollback.
            touched: whether the services may have been restarted; None to read that from the journal.
            restart: whether to stop and start services. If not, only the files are restored.

        Raises:
            UserError: files could not be restored.
        """
        self.interrupts.forget()
        touched = self._touched(change) if touched is None else touched
        if change.status != Status.ROLLING_BACK:
            with contextlib.suppress(OSError):  # on a full disk it stays marked as an unfinished apply until the end
                self.installation.mark(change, Status.ROLLING_BACK)
        self.audit("roll back", "begun", why=why)
        self._attempt(lambda: [self._try(f"restore {Path(name).name}", put_back, Path(name), text) for name, text in change.before.items()])
        if self._failures:
            stuck = self._failed_steps()
            self.audit("restore", "failed", why=stuck)
            raise UserError(f"{stuck}. The previous files were not restored. Free disk space, then run tune-gpu promote --recover.")
        self.audit("restore", "ok", files=len(change.before))
        if touched:
            self._attempt(lambda: self._services(change, restart))
        if stuck := self._failed_steps():
            self.audit("roll back", "files are back, the services are not", why=stuck)
            return RolledBack(why, False, f"{stuck}. Run tune-gpu promote --recover.")
        unhealthy = self._wait(change) if touched and restart else ""
        self._attempt(lambda: self._try("mark rolled back", self.installation.mark, change, Status.ROLLED_BACK))
        if self._failures:
            unhealthy = "; ".join(filter(None, [unhealthy, f"{self._failed_steps()}. Run tune-gpu promote --recover."]))
        else:
            self.tidy(change)
        if unhealthy:
            self.audit("roll back", "files are back, the services are not", why=unhealthy)
            return RolledBack(why, False, unhealthy)
        self.audit("roll back", "ok")
        return RolledBack(why, True)

    def tidy(self, change: Change) -> None:
        """Remove the staged files of the change, and the unit that would roll it back at boot."""
        self.installation.tidy(map(Path, change.before))
        with contextlib.suppress(OSError):
            self.target.unguard()

    def _services(self, change: Change, restart: bool) -> None:
        self._try("reload", self.target.reload)
        if not restart:
            return
        names = [place.name for place in self.places]
        ran = names if change.running_before is None else change.running_before
        stopped = []
        for place in reversed(self.places):
            if self._try(f"stop {place.name}", self.target.stop, place.unit):
                stopped.append(place.name)
                self.audit("stop", "ok", unit=place.unit)
        for place in self.places:  # a service that still runs with the new files would not be started again
            if place.name in ran and place.name in stopped and self._try(f"start {place.name}", self.target.start, place.unit):
                self.audit("start", "ok", unit=place.unit)

    def _wait(self, change: Change) -> str:
        """Wait for the services that answered before, and return what is wrong with those that do not."""
        deadline = time.monotonic() + self.watcher.deadline_s
        wrong = []
        for place in [place for place in self.places if place.name in change.healthy_before]:
            try:
                self._journal(f"wait for {place.name}")
                self.watcher.wait(place, self.target, None, deadline, lambda: self.interrupts.noted)
            except Unhealthy as error:
                wrong.append(str(error))
            except Exception as error:
                wrong.append(f"{place.name} cannot be checked: {type(error).__name__}: {error}")
            else:
                self.audit("health", "ok", service=place.name)
        return "; ".join(wrong)

    def _attempt(self, part: Callable[[], object]) -> None:
        for _ in range(_ATTEMPTS):
            self._failures.clear()
            part()
            if not self._failures:
                return

    def _try(self, step: str, action: Callable[..., object], *arguments: object) -> bool:
        """Do a step, and return whether it succeeded. An error is kept for the message."""
        try:
            self._journal(step)
            action(*arguments)
        except Exception as error:
            self._failures[step] = f"{step}: {error}"
            return False
        return True

    def _journal(self, step: str) -> None:
        """Record a step. A full disk does not stop a rollback, because all of its steps can be repeated."""
        with contextlib.suppress(OSError):
            self.installation.intend(step)

    def _touched(self, change: Change) -> bool:
        """Return whether services may run with other files than the previous ones."""
        try:
            return change.status != Status.APPLYING or "reload" in self.installation.intended()
        except OSError:
            return True

    def _failed_steps(self) -> str:
        return "; ".join(self._failures.values())
