"""Putting back what was there before: the files, then the services that ran, one by one. No failure of one part keeps another from its
turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import Interrupts
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.installed import Change, Installation, Status
from tune_gpu.promote.staged import put_back, stage
from tune_gpu.promote.target import Target
from tune_gpu.promote.watch import Expected, Unhealthy, Watcher

ORDER = ("whisper", "vllm")
"""Whisper first: vLLM takes its share of what is left."""
_ATTEMPTS = 2
"""A step that has failed is tried once more, after the others."""
_ANYTHING = Expected(None, None, None)


@dataclass(frozen=True)
class RolledBack:
    """It was applied, fell short, and is taken back."""

    why: str
    serving: bool
    """Whether everything that answered before answers again."""
    then: str = ""
    """What does not, and why."""

    @property
    def not_serving_message(self) -> str:
        """Return the message for people if something does not answer."""
        return f"the files are as they were, but not all that served before answers: {self.then}"


@dataclass
class Restorer:
    """Take back one change.

    Args:
        target: starts and stops.
        units: service -> unit.
        installation: locked; where files are and what was there.
        watcher: whether it serves.
        audit: records every step.
        interrupts: held; a signal ends the wait for a service, and nothing else.
        recovery: the command that does the same at the next boot.
    """

    target: Target
    units: Mapping[str, str]
    installation: Installation
    watcher: Watcher
    audit: Audit
    interrupts: Interrupts
    recovery: Sequence[str]
    _failures: dict[str, str] = field(default_factory=dict)
    """Step -> why it failed."""

    def guard(self, change: Change) -> None:
        """Make the next boot put this change back. Raise OSError."""
        self.target.guard(self.recovery, change.units)

    def stage(self, change: Change) -> None:
        """Keep what was there ready beside it. Raise OSError."""
        for name, content in change.before.items():
            if content is not None:
                stage(Path(name), content, old=True)

    def take_back(self, change: Change, why: str, *, restart: bool = True) -> RolledBack:
        """Take back a change that is in force or was cut off. Raise UserError if it cannot be begun (no room); then nothing was changed."""
        try:
            self._journal("stage what was there")
            self.stage(change)
            self._journal("guard")
            self.guard(change)
            self._journal("begin the rollback")
            touched = self._touched(change)
            change = self.installation.begin_back(change)
        except Exception as error:
            if not change.status.unfinished:
                self.tidy(change)
                raise UserError(f"the rollback was not begun: {error}; nothing was changed") from error
            touched = True
        return self.put_back(change, why, touched=touched, restart=restart)

    def put_back(self, change: Change, why: str, *, touched: bool | None = None, restart: bool = True) -> RolledBack:
        """Put back a change that is under way.

        Args:
            change: with what was there before it.
            why: it is taken back.
            touched: whether the services may have been restarted; None: as the journal says.
            restart: stop and start services; otherwise only the files are put back.

        Raises:
            UserError: files could not be put back.
        """
        self.interrupts.forget()
        touched = self._touched(change) if touched is None else touched
        if change.status != Status.ROLLING_BACK:
            with contextlib.suppress(OSError):  # a full disk: it stays an unfinished apply until its end
                self.installation.mark(change, Status.ROLLING_BACK)
        self.audit("roll back", "begun", why=why)
        self._attempt(lambda: [self._try(f"put back {Path(name).name}", put_back, Path(name), text) for name, text in change.before.items()])
        if self._failures:
            stuck = self._stuck()
            self.audit("restore", "failed", why=stuck)
            raise UserError(f"{stuck}; what was there before is not back. Make room for it, then run tune-gpu promote --recover.")
        self.audit("restore", "ok", files=len(change.before))
        if touched:
            self._attempt(lambda: self._services(change, restart))
        if stuck := self._stuck():
            self.audit("roll back", "files are back, the services are not", why=stuck)
            return RolledBack(why, False, f"{stuck}. Run tune-gpu promote --recover.")
        unhealthy = self._wait(change) if touched and restart else ""
        self._attempt(lambda: self._try("mark rolled back", self.installation.mark, change, Status.ROLLED_BACK))
        if self._failures:
            unhealthy = "; ".join(filter(None, [unhealthy, f"{self._stuck()}. Run tune-gpu promote --recover."]))
        else:
            self.tidy(change)
        if unhealthy:
            self.audit("roll back", "files are back, the services are not", why=unhealthy)
            return RolledBack(why, False, unhealthy)
        self.audit("roll back", "ok")
        return RolledBack(why, True)

    def tidy(self, change: Change) -> None:
        """Remove what waits of the change, and what makes a boot take it back."""
        self.installation.tidy(map(Path, change.before))
        with contextlib.suppress(OSError):
            self.target.unguard()

    def _services(self, change: Change, restart: bool) -> None:
        self._try("reload", self.target.reload)
        if not restart:
            return
        ran = ORDER if change.running_before is None else change.running_before
        stopped = []
        for name in reversed(ORDER):
            if self._try(f"stop {name}", self.target.stop, self.units[name]):
                stopped.append(name)
                self.audit("stop", "ok", unit=self.units[name])
        for name in ORDER:  # one that still runs with the new files would not be started anew
            if name in ran and name in stopped and self._try(f"start {name}", self.target.start, self.units[name]):
                self.audit("start", "ok", unit=self.units[name])

    def _wait(self, change: Change) -> str:
        """Wait for the services that answered before; return what is wrong with those that do not."""
        deadline = time.monotonic() + self.watcher.deadline_s
        wrong = []
        for name in change.healthy_before:
            try:
                self._journal(f"wait for {name}")
                self.watcher.wait(name, self.target, _ANYTHING, deadline, lambda: self.interrupts.noted)
            except Unhealthy as error:
                wrong.append(str(error))
            except Exception as error:
                wrong.append(f"{name} cannot be asked: {type(error).__name__}: {error}")
            else:
                self.audit("health", "ok", service=name)
        return "; ".join(wrong)

    def _attempt(self, part: Callable[[], object]) -> None:
        for _ in range(_ATTEMPTS):
            self._failures.clear()
            part()
            if not self._failures:
                return

    def _try(self, step: str, action: Callable[..., object], *arguments: object) -> bool:
        """Do a step, and return whether it succeeded. An error is kept for the report."""
        try:
            self._journal(step)
            action(*arguments)
        except Exception as error:
            self._failures[step] = f"{step}: {error}"
            return False
        return True

    def _journal(self, step: str) -> None:
        """Write down a step. Write down a step. A full disk does not keep a rollback from its steps, which can all be done again."""
        with contextlib.suppress(OSError):
            self.installation.intend(step)

    def _touched(self, change: Change) -> bool:
        """Return whether services may run with something else than the files of before."""
        try:
            return change.status != Status.APPLYING or "reload" in self.installation.intended()
        except OSError:
            return True

    def _stuck(self) -> str:
        return "; ".join(self._failures.values())
