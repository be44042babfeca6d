"""Find the deployment in force in an install folder: a run's, the previous one, or an interrupted one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.promote.installed import Change, Installation, Status


@dataclass(frozen=True)
class Deployment:
    """The deployment in an install folder, as `tune-gpu status` prints it."""

    message: str | None
    """The deployment as one line of text; None if `promote` has installed nothing."""
    run_id: str | None = None
    """The run whose deployment is in force or is being changed."""
    state: str | None = None
    """`in_force`, `changing` or `interrupted`."""

    def of_run(self, run_id: str) -> str | None:
        """Return the state if it is this run's, else None."""
        return self.state if run_id == self.run_id else None


def deployment_in(folder: Path) -> Deployment:
    """Return the deployment in a folder, read without a lock. A folder that cannot be read is reported in the message, not as an error."""
    installation = Installation(folder)
    try:
        last, latest = installation.peek(), installation.latest
    except UserError as error:
        return Deployment(f"deployment in {folder}: unknown: {error}")
    if latest is None:
        return Deployment(None)
    if last is None:
        return Deployment(f"deployment in {folder}: the files from before promote are in force (run {latest.run_id} was rolled back)")
    return _of(last, folder, installation.holder())


def _of(last: Change, folder: Path, holder: str | None) -> Deployment:
    if last.status == Status.APPLIED:
        return Deployment(f"deployment in {folder}: run {last.run_id}, applied at {last.at}, is in force", last.run_id, "in_force")
    doing = "apply" if last.status == Status.APPLYING else "rollback"
    if holder is not None:
        return Deployment(f"deployment in {folder}: the {doing} of run {last.run_id} is in progress (process {holder})", last.run_id, "changing")
    message = f"deployment in {folder}: the {doing} of run {last.run_id} was interrupted: run tune-gpu promote --recover"
    return Deployment(message, last.run_id, "interrupted")
