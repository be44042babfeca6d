"""A run as it lies on disk, checked: what `report`, `status`, `compare` and `promote` read. Reading changes nothing.

A folder may be half-written (a run that was killed), foreign (somebody else's file under our name) or of a newer program: each is a
`UserError` of one line that names the file. Unknown fields are passed over.
"""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.records.ends import RunEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.common.wording import counted

SCHEMA_VERSION = 1
_SUMMARY_NEEDS: dict[str, type | tuple[type, ...]] = {
    "experiment": str, "run_id": str, "device": str, "ended": str, "counts": dict, "n_evaluations": int, "best": (dict, type(None)),
    "baseline": (dict, type(None)), "ties": list, "generations": list, "costs": dict,
}  # fmt: skip
_STANDING_NEEDS: dict[str, type | tuple[type, ...]] = {
    "params": dict, "fitness": (int, float, type(None)), "fitness_stderr": (int, float, type(None)), "n_evaluations": int, "n_windows": int,
}  # fmt: skip
_FINDING_NEEDS: dict[str, type | tuple[type, ...]] = {"metric": str, "verdict": str, "unit": str, "effect": (dict, type(None))}


class RunState(StrEnum):
    """Progress of a run."""

    FINISHED = "finished"
    NO_WINNER = "no winner"
    """It ran to its end, and nothing was feasible."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Stopped (Ctrl-C, SIGTERM, a budget of an earlier attempt): it can be resumed."""
    KILLED = "killed"
    """Its process is gone and it wrote no end: it can be resumed."""
    BROKEN = "broken"
    """Its files cannot be read."""

    @property
    def resumable(self) -> bool:
        """Return True if `launch --resume` can continue the run."""
        return self in (RunState.INTERRUPTED, RunState.KILLED)


@dataclass(frozen=True)
class RunRecord:
    """All files of a run."""

    folder: RunFolder
    state: RunState
    config: Mapping[str, Any]
    """`config.yaml`, unchecked."""
    lines: tuple[EvaluationRecord, ...]
    """Every whole line, in the order of the generations."""
    manifest: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    comparison: Mapping[str, Any] | None = None
    """What `tune-gpu compare` found against the baseline."""
    confirmation: Mapping[str, Any] | None = None
    """What the run itself found when it confirmed its winner."""

    @property
    def ended(self) -> bool:
        """Return whether nothing is left to measure. A run that its time budget ended goes on with a new budget."""
        return self.state in (RunState.FINISHED, RunState.NO_WINNER) and (self.summary or {}).get("ended") != RunEnd.TIME_BUDGET

    @property
    def run_id(self) -> str:
        """Return its name."""
        return self.folder.run_id

    @property
    def evidence(self) -> Mapping[str, Any] | None:
        """Return the A/B comparison with the baseline that supports the winner, or None."""
        best = (self.summary or {}).get("best") or {}
        return next((found for found in (self.comparison, self.confirmation) if found is not None and is_of_winner(found, best.get("params"))), None)

    @property
    def device(self) -> Mapping[str, Any]:
        """Return the device of the manifest, empty if unknown."""
        devices = (self.manifest or {}).get("devices") or [{}]
        return devices[0] if isinstance(devices[0], Mapping) else {}


def read_run(artifacts_dir: str | Path, run_id: str) -> RunRecord:
    """Read a run by its id, or by the path of its folder.

    Raises:
        UserError: there is no such run, or a file of it is half-written, foreign, or of a newer program.
    """
    return read_folder(find_run(artifacts_dir, run_id))


def find_run(artifacts_dir: str | Path, run_id: str) -> RunFolder:
    """Return the folder of a run by its id or its path. Raise UserError with the existing runs."""
    asked = Path(run_id).expanduser()
    if asked.is_dir() and (asked / "config.yaml").is_file():
        path = asked.resolve()
        return RunFolder(path.parent.parent, path.parent.name, path.name)
    return RunFolder.find(artifacts_dir, run_id, asked_as="")


def read_folder(folder: RunFolder) -> RunRecord:
    """Read a run as `read_run` does, from a known folder."""
    path = folder.path
    config = _read_yaml(path / "config.yaml")
    lines = tuple(folder.candidates(repair=False))
    manifest = read_json(path / "manifest.json", {"run_id": str, "devices": list})
    summary = read_json(path / "summary.json", _SUMMARY_NEEDS)
    for name, content in (("manifest.json", manifest), ("summary.json", summary)):
        if content is not None and content["run_id"] != folder.run_id:
            raise UserError(f"{path / name}: it is of run {content['run_id']}, not of {folder.run_id}")
    for name in ("best", "baseline"):
        if summary is not None and summary[name] is not None:
            _check(path / "summary.json", summary[name], _STANDING_NEEDS, f"{name}.")
    return RunRecord(
        folder, _state(manifest, summary), config, lines, manifest, summary,
        plan=read_json(path / "plan.json", {"counts": dict, "refused": list}),
        comparison=_comparison(folder, "comparison.json"), confirmation=_comparison(folder, "confirmation.json"),
    )  # fmt: skip


def is_of_winner(comparison: Mapping[str, Any], winner: Any) -> bool:
    """Return True if a comparison is about these parameters. A run that was resumed after it may have found another winner."""
    arms = comparison.get("arms")
    arm = arms.get(comparison.get("ours")) if isinstance(arms, Mapping) else None
    return not isinstance(arm, Mapping) or arm.get("params") == winner


def _comparison(folder: RunFolder, name: str) -> dict[str, Any] | None:
    path = folder.path / name
    found = read_json(path, {"run_id": str, "confirmed": bool, "confirmed_why": str, "sentence": str, "findings": list})
    if found is None:
        return None
    if found["run_id"] != folder.run_id:
        raise UserError(f"{path}: it is of run {found['run_id']}, not of {folder.run_id}")
    for finding in found["findings"]:
        _check(path, finding if isinstance(finding, dict) else {}, _FINDING_NEEDS, "findings.")
    return found


def read_winner(folder: RunFolder) -> dict[str, Any] | None:
    """Return the experiment's winner file if it is this run's, else None. Raise UserError for a link, and for a file of another kind."""
    folder.check_winner_file()
    winner = read_json(folder.winner_file, {"run_id": str, "best_params": dict, "best_metrics": dict, "confirmed": bool})
    return winner if winner is not None and winner["run_id"] == folder.run_id else None


def refuse_running(record: RunRecord) -> None:
    """Raise UserError while the run is going on."""
    if record.state is RunState.RUNNING:
        raise UserError(f"{record.run_id}: it is still running ({_who(record.manifest)}); wait for its end: tune-gpu status")


def decided(record: RunRecord) -> Mapping[str, Any]:
    """Return the summary of a run that has ended with a winner. Raise UserError that names what is missing."""
    refuse_running(record)
    if record.summary is None or record.state.resumable:
        raise UserError(f"{record.run_id}: it has not come to its end ({record.state}); go on with: {resume_command(record.folder)}")
    if record.summary["best"] is None:
        kinds = ", ".join(f"{number} {kind}" for kind, number in (record.summary.get("failures") or {}).items())
        said = kinds or f"{counted(record.summary['n_evaluations'], 'evaluation')}, none within the constraints"
        raise UserError(f"{record.run_id}: it has no winner, nothing was feasible ({said})")
    return record.summary


def all_runs(artifacts_dir: str | Path) -> Iterator[tuple[RunFolder, RunRecord | UserError]]:
    """Yield every run below a folder, oldest first. A run that cannot be read comes with its error."""
    root = Path(artifacts_dir).expanduser().resolve()
    for config in sorted(root.glob("*/*/config.yaml"), key=lambda path: (path.parent.name, path.parent.parent.name)):
        folder = RunFolder(root, config.parent.parent.name, config.parent.name)
        try:
            yield folder, read_folder(folder)
        except UserError as error:
            yield folder, error


def resume_command(folder: RunFolder) -> str:
    """Return the command that resumes it."""
    place = "" if folder.root == Path("artifacts").resolve() else " " + shlex.quote(f"run.artifacts_dir={folder.root}")
    return f"python -m tune_gpu.launch --resume {folder.run_id}{place}"


def read_json(path: Path, needs: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any] | None:
    """Return a JSON object that has at least these fields of these types, or None without a file. Raise UserError that names the file."""
    try:
        content = outside_files.read_json(path, outside_files.RUN_FILE)
    except outside_files.NotThere:
        return None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not written by this program (a JSON {type(content).__name__}, not an object)")
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version={version}; this program reads up to {SCHEMA_VERSION}: use the newer one")
    _check(path, content, needs)
    return content


def _check(where: object, content: Mapping[str, Any], needs: Mapping[str, type | tuple[type, ...]], prefix: str = "") -> None:
    for key, kind in needs.items():
        if key not in content:
            raise UserError(f"{where}: not written by this program (`{prefix}{key}` is missing)")
        if not isinstance(content[key], kind) or (isinstance(content[key], bool) and kind is not bool):
            raise UserError(f"{where}: not written by this program (`{prefix}{key}` is {json.dumps(content[key])[:60]})")


def _read_yaml(path: Path) -> dict[str, Any]:
    content = outside_files.read_yaml(path, outside_files.RUN_CONFIG)
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise UserError(f"{path}: not a run's configuration (`parameters` is missing)")
    return content


def _state(manifest: Mapping[str, Any] | None, summary: Mapping[str, Any] | None) -> RunState:
    if manifest is not None and manifest.get("ended_at") is None and _alive(manifest.get("process")):
        return RunState.RUNNING
    if summary is None or manifest is None or manifest.get("ended_at") is None:
        return RunState.KILLED
    if summary["ended"] == RunEnd.INTERRUPTED:
        return RunState.INTERRUPTED
    return RunState.FINISHED if summary["best"] is not None else RunState.NO_WINNER


def _alive(process: Any) -> bool:
    """Return True if the process of a manifest is running: the same id and start time, on this machine."""
    if not isinstance(process, Mapping) or process.get("host") != socket.gethostname():
        return False
    pid, ticks = process.get("pid"), process.get("start_ticks")
    return isinstance(pid, int) and ticks is not None and start_ticks(pid) == ticks


def _who(manifest: Mapping[str, Any] | None) -> str:
    process = (manifest or {}).get("process") or {}
    return f"process {process.get('pid', '?')} on {process.get('host', '?')}"
