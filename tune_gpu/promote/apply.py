"""Install, restart and watch a deployment, and roll it back if it fails a check or is interrupted.

Every step is recorded before it is done, and the state on disk is `applying` or `rolling_back` until the end. Whatever kills this
process, `promote --recover` restores the previous files. Restoring is idempotent.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.common.interrupt import Interrupts
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.env_file import require_keys
from tune_gpu.promote.installed import Change, Installation, Status, check_writable, digest, text_of
from tune_gpu.promote.locks import units_locked
from tune_gpu.promote.observe import observe
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.restore import Restorer, RolledBack
from tune_gpu.promote.rollback_script import PROMOTIONS, write_rollback
from tune_gpu.promote.staged import install, stage
from tune_gpu.promote.supervisor import ProcessSupervisor
from tune_gpu.promote.systemd import Systemd
from tune_gpu.promote.target import Target, TargetError
from tune_gpu.promote.watch import Unhealthy, Watcher

_Result = TypeVar("_Result")
_MOST_SHOWN = 6
"""Largest number of differences that a message names."""


def folder_of(settings: PromoteSettings) -> Path:
    """Return the folder in which configuration files are installed."""
    return Path(settings.install_dir).expanduser().resolve()


def target_of(settings: PromoteSettings) -> Target:
    """Return the target named in the settings, which starts and stops the services."""
    if settings.target == "process":
        return ProcessSupervisor(folder_of(settings) / "supervised")
    return Systemd(Path(settings.systemd_dir).expanduser().resolve())


def _stage_new(files: Mapping[Path, str]) -> None:
    for path, content in files.items():
        stage(path, content, old=False)


def refuse_unfinished(folder: Path) -> None:
    """Raise UserError if an apply or a rollback was interrupted. The installed files are then incomplete, and nothing can be compared with
    them."""
    try:
        last = Installation(folder).peek()
    except UserError:  # a user who may not read the state cannot change the target either; for others the lock reports it
        return
    _refuse(last)


def _refuse(last: Change | None) -> None:
    if last is not None and last.status.unfinished:
        doing = "apply" if last.status == Status.APPLYING else "rollback"
        raise UserError(f"the {doing} of run {last.run_id}, begun at {last.at}, was interrupted. Run tune-gpu promote --recover first.")


@dataclass
class Deployer:
    """Applies and rolls back deployments on one target.

    Args:
        target: starts and stops the services.
        places: of the services, in the order of starting.
        installation: the installed files and the previous ones.
        watcher: checks whether the services serve.
        settings: `promote`.
        audit: records every step.
    """

    target: Target
    places: Sequence[Place]
    installation: Installation
    watcher: Watcher
    settings: PromoteSettings
    audit: Audit
    interrupts: Interrupts = field(default_factory=Interrupts)

    @classmethod
    def of(cls, settings: PromoteSettings, places: Sequence[Place], watcher: Watcher, audit: Audit) -> Deployer:
        """Return a deployer for the target that the settings name."""
        return cls(target_of(settings), places, Installation(folder_of(settings)), watcher, settings, audit)

    @property
    def units(self) -> list[str]:
        """Return the units in the order of starting."""
        return [place.unit for place in self.places]

    def apply(
        self,
        run_id: str,
        experiment: str,
        services: Sequence[DeployedService],
        files: Mapping[Path, str],
        reviewed: Mapping[str, str | None],
        turn_ms: float | None,
    ) -> RolledBack | None:
        """Install the files and restart the services. Return None if they serve, else the result of the rollback.

        Args:
            run_id: the run whose winner is deployed.
            experiment: the run's experiment.
            services: what is deployed, in the order of starting.
            files: destination -> content.
            reviewed: destination -> hash of the installed file when the promotion was written.
            turn_ms: the median of a turn that the comparison measured; None to accept any latency.

        Raises:
            UserError: a permission or a key is missing, another promote is running, or the target was changed since the files were written.
            KeyboardInterrupt: a signal arrived, and the previous files were restored.
        """
        require_keys(services, self.installation.folder)
        check_writable([*files, self._kept(run_id)])
        self.target.check_files(files)
        with self._locked():
            _refuse(self.installation.last)
            for path, known in reviewed.items():
                if digest(text_of(Path(path))) != known:
                    raise UserError(
                        f"{path}: changed since this promotion was written. Run promote without --apply and review the diff."
                    )
            change = self._begin(run_id, experiment, list(files))
            try:
                with self.interrupts.let_through():
                    self._install(change, services, files, turn_ms)
                self._step("mark applied", self.installation.mark, change, Status.APPLIED)
            except (Unhealthy, TargetError, OSError) as error:
                return self._restorer().put_back(change, str(error))
            except BaseException as error:  # a signal or a bug of ours: nothing may be left half done
                back = self._restorer().put_back(change, f"stopped by {type(error).__name__}")
                if isinstance(error, KeyboardInterrupt) and not back.serving:
                    raise KeyboardInterrupt(back.not_serving_message) from error
                raise
            self.audit("apply", "ok")
            self._restorer().tidy(change)
        return None

    def rollback(self) -> tuple[Change, RolledBack]:
        """Roll the last change back, or finish an interrupted rollback. Raise UserError if there is no change."""
        with self._locked():
            change = self.installation.last
            if change is None:
                raise UserError(f"promote --rollback: nothing that promote installed is in force in {self.installation.folder}")
            check_writable([Path(path) for path in change.before])
            self.audit("rollback", "begun", of_run=change.run_id)
            return change, self._restorer().take_back(change, "requested")

    def recover(self, *, at_boot: bool = False) -> tuple[Change, RolledBack] | None:
        """Restore the previous files after an interrupted apply or rollback. Return None if nothing was interrupted.

        Args:
            at_boot: whether to restore only the files, because the boot starts the services afterwards.
        """
        with self._locked():
            change, latest = self.installation.last, self.installation.latest
            if change is None or not change.status.unfinished:
                if latest is not None:
                    self._restorer().tidy(latest)
                return None
            self.audit("recover", "begun", of_run=change.run_id)
            return change, self._restorer().take_back(change, "interrupted", restart=not at_boot)

    def _kept(self, run_id: str) -> Path:
        """Return the folder with the files for rolling this promotion back."""
        return self.installation.folder / PROMOTIONS / run_id

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the installation and the units, and hold signals. Another promote may install the same units into another folder."""
        with self.installation.locked(), units_locked(self.target, self.units), self.interrupts.held():
            yield

    def _begin(self, run_id: str, experiment: str, paths: list[Path]) -> Change:
        try:
            running = tuple(place.name for place in self.places if self.target.is_running(place.unit))
        except TargetError as error:
            raise UserError(f"{error}; nothing was changed") from error
        healthy = tuple(place.name for place in self.places if self.watcher.is_healthy(place))
        before = {str(path): text_of(path) for path in paths}
        change = Change(
            run_id, experiment, now(), tuple(self.units), before, asdict(self.settings), healthy, running, services=tuple(self.places)
        )
        try:
            self.installation.begin(change)
        except OSError as error:
            raise UserError(f"{self.installation.folder}: {error}; nothing was changed") from error
        self.audit("apply", "begun", running_before=", ".join(running) or "none", healthy_before=", ".join(healthy) or "none")
        return change

    def _install(self, change: Change, services: Sequence[DeployedService], files: Mapping[Path, str], turn_ms: float | None) -> None:
        restorer = self._restorer()
        self._step("guard", restorer.guard, change)
        self._step("stage the previous files", restorer.stage, change)
        self._step("stage the new files", _stage_new, files)
        shell = self.target.shell(self.units)
        self._step("write rollback.sh", write_rollback, self._kept(change.run_id), change.before, shell)
        for path in files:
            self._step(f"install {path.name}", install, path)
        self.audit("install", "ok", files=len(files))
        self._step("reload", self.target.reload)
        self._step("verify", self.target.verify, files)
        for place in reversed(self.places):
            self._step(f"stop {place.name}", self.target.stop, place.unit)
            self.audit("stop", "ok", unit=place.unit)
        deadline = time.monotonic() + self.settings.health_deadline_s
        for service in services:
            self._step(f"start {service.name}", self.target.start, service.unit)
            self.audit("start", "ok", unit=service.unit)
            self._step(f"wait for {service.name}", self.watcher.wait, service.place, self.target, service, deadline)
            self.audit("health", "ok", service=service.name)
            self._step(f"compare running {service.name}", self._compare, service)
        median = self._step("probe", self.watcher.probe, turn_ms)
        self.audit("probes", "ok", **({} if median is None else {"median_ms": round(median, 1)}))

    def _compare(self, service: DeployedService) -> None:
        """Compare the running service's settings with the measured ones. Raise Unhealthy if they differ."""
        found = observe(service, self.installation.folder, self.target, self.watcher)
        details = {"service": service.name, "compared_with": ", ".join(found.sources) or "nothing"}
        if found.unread:
            details["not_readable_here"] = f"not readable here: {', '.join(found.unread)}"
        self.audit("compare", "differs" if found.differences else "ok", **details)
        if found.differences:
            more = f"; {len(found.differences) - _MOST_SHOWN} more" if len(found.differences) > _MOST_SHOWN else ""
            raise Unhealthy(f"{'; '.join(found.differences[:_MOST_SHOWN])}{more}")

    def _step(self, step: str, action: Callable[..., _Result], *arguments: object) -> _Result:
        self.interrupts.check()
        self.installation.intend(step)
        return action(*arguments)

    def _restorer(self) -> Restorer:
        return Restorer(self.target, self.places, self.installation, self.watcher, self.audit, self.interrupts, self._recovery())

    def _recovery(self) -> list[str]:
        """Return the command that restores this target at the next boot."""
        return [
            *(sys.executable, "-P", "-m", "tune_gpu.cli.main", "promote", "--recover", "--at-boot"),
            f"promote.install_dir={self.installation.folder}",
        ]
