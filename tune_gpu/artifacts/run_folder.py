"""The files that a run leaves on disk. Other tools read them (DESIGN.md, "Artifacts"). Lines are written whole; files are replaced by
rename."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tune_gpu.artifacts.json_text import finite, strict_json
from tune_gpu.artifacts.records.base import Record
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.manifest import Manifest
from tune_gpu.artifacts.records.winner import WinnerFile
from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import append_whole, write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import sealed
from tune_gpu.config.texts import check_name
from tune_gpu.search.tournament import Candidate

_LOG = logging.getLogger(__name__)
_PROPOSALS = "proposals.jsonl"
ANCHORS = "anchors.jsonl"
"""Further deployments of the baseline, which show the noise of the run. The tournament does not use them."""
_RAY = "ray"


class RunFolder:
    """`artifacts/<experiment>/<run_id>/`. No secret that the redactor knows is written into it."""

    def __init__(self, artifacts_dir: str | Path, experiment: str, run_id: str, redactor: Redactor | None = None) -> None:
        self.redactor = redactor or Redactor()
        self.root = Path(artifacts_dir).expanduser().resolve()
        self.experiment, self.run_id = experiment, run_id
        self.path = self.root / experiment / run_id

    @classmethod
    def find(cls, artifacts_dir: str | Path, run_id: str, asked_as: str = "--resume ") -> RunFolder:
        """Return the folder of a run of any experiment. Raise UserError, listing the existing runs, if there is no such run."""
        root = Path(artifacts_dir).expanduser().resolve()
        runs = {path.parent.name: path.parent.parent.name for path in root.glob("*/*/config.yaml")}
        if run_id not in runs:
            there = ", ".join(sorted(runs)[-8:]) or "none"
            raise UserError(f"{asked_as}{run_id}: no such run in {root}. Existing runs: {there}.")
        return cls(root, runs[run_id], run_id)

    def create(self, config_yaml: str) -> None:
        """Make the folder with its resolved configuration. If another run began in the same second, `run_id` gets a number appended.

        Raise UserError for a name whose folder would be outside the artifacts folder.
        """
        with self.created(config_yaml):
            pass

    @contextlib.contextmanager
    def created(self, config_yaml: str) -> Iterator[None]:
        """Make the folder as `create` does, and lock it as `held` does. It is locked before its configuration exists, by which other
        commands find a run."""
        check_name("name", self.experiment)
        check_name("run_id", self.run_id)
        self._make_own()
        with self.held():
            write_whole(self.path / "config.yaml", sealed(redacted_yaml(config_yaml, self.redactor)))
            yield

    def _make_own(self) -> None:
        for name in itertools.chain([self.run_id], (f"{self.run_id}-{number}" for number in itertools.count(2))):
            path = self.root / self.experiment / name
            if any(self.root.glob(f"*/{name}")):  # a run is found by its id alone, so the id must be unique across experiments
                continue
            with contextlib.suppress(FileExistsError):
                path.mkdir(parents=True, exist_ok=False)
                if len(list(self.root.glob(f"*/{name}"))) > 1:  # a run of another experiment took the name meanwhile
                    path.rmdir()
                    continue
                self.run_id, self.path = name, path
                return

    def earlier_manifests(self) -> tuple[Manifest, ...]:
        """Return the earlier manifests of a resumed run, oldest first, each without those before it."""
        path = self.path / "manifest.json"
        try:
            return Manifest.parse(outside_files.read_json(path, outside_files.RUN_FILE), path).attempts()
        except UserError:  # killed before it was written
            return ()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the run within the block. Raise UserError if another process holds the lock, and for a folder with links.

        The lock is on the folder itself, and the kernel releases it however its holder ends. If the file system has no locks, a warning is
        logged.
        """
        self._refuse_links()
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.run_id}: another process is using it. Wait until it has ended; tune-gpu status shows that.") from None
            except OSError as error:
                _LOG.warning(
                    "%s: this file system has no locks (%s). Do not start a second command for this run while this one runs.", self.path, error.strerror
                )
            yield
        finally:
            os.close(handle)

    def _refuse_links(self) -> None:
        """Raise UserError for a link in the folder, among Ray's attempts, or at the winner's file.

        The run may be somebody else's, and a link would redirect what this process writes.
        """
        for folder in (self.path, self.path / _RAY):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                for entry in entries:
                    _refuse_link(Path(entry.path))
        self.check_winner_file()

    @property
    def winner_file(self) -> Path:
        """Return the path of the experiment's winner file: `artifacts/winners/<experiment>.json`."""
        return self.root / "winners" / f"{self.experiment}.json"

    def check_winner_file(self) -> None:
        """Raise UserError if the winner's file or its folder is a symbolic link."""
        for path in (self.winner_file.parent, self.winner_file):
            _refuse_link(path)

    def append_candidate(self, record: EvaluationRecord) -> None:
        """Append an evaluation as one line in one write, synced to disk on return."""
        self._append(f"gen_{record.generation}_candidates.jsonl", record.dump())

    def append_anchor(self, record: EvaluationRecord) -> None:
        """Append a further deployment of the baseline, as `append_candidate` does."""
        self._append(ANCHORS, record.dump())

    def append_proposal(self, candidate: Candidate) -> None:
        """Record a candidate whose evaluation begins, so that a resumed run knows when the search proposed it."""
        self._append(_PROPOSALS, {"candidate_id": candidate.candidate_id, "asked_after": candidate.asked_after})

    def proposals(self) -> dict[str, int]:
        """Return for each candidate how many results the search had when it proposed it. Skip unreadable and unfinished lines."""
        found: dict[str, int] = {}
        path, limit = self.path / _PROPOSALS, outside_files.RUN_LINES
        with contextlib.suppress(UserError):
            for number, text in enumerate(_whole_lines(path, repair=True), 1):
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    proposal = outside_files.parse_json(text, f"{path}, line {number}", limit)
                    found[str(proposal["candidate_id"])] = int(proposal["asked_after"])
        return found

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        append_whole(self.path / name, (json.dumps(self.redactor.value(finite(line)), ensure_ascii=False) + "\n").encode())

    def candidates(self, *, repair: bool = True) -> Iterator[EvaluationRecord]:
        """Read all complete lines, by generation. Skip an unfinished last line, left by a run that was killed while it wrote.

        Args:
            repair: whether to remove the unfinished line, for a run that resumes. Mere readers must not, because a run may be writing it.
        """
        for path in sorted(self.path.glob("gen_[0-9]*_candidates.jsonl"), key=lambda p: int(p.name.split("_")[1])):
            yield from _records(path, repair=repair)

    def anchors(self, *, repair: bool = True) -> Iterator[EvaluationRecord]:
        """Read the further deployments of the baseline, as `candidates` does. Runs of older programs have none."""
        with contextlib.suppress(outside_files.NotThere):
            yield from _records(self.path / ANCHORS, repair=repair)

    def write_json(self, name: str, content: Record | Mapping[str, Any]) -> None:
        """Write a file of the run atomically."""
        write_whole(self.path / name, self._as_json(content))

    def write_winner(self, content: WinnerFile) -> Path:
        """Replace the experiment's winner file, and return its path. Raise UserError if it or its folder is a symbolic link."""
        self.check_winner_file()
        write_whole(self.winner_file, self._as_json(content), follow=False)
        return self.winner_file

    def _as_json(self, content: Record | Mapping[str, Any]) -> str:
        return strict_json(self.redactor.value(content.dump() if isinstance(content, Record) else content)) + "\n"


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: a symbolic link, which would make this run write elsewhere. Replace it by the file or folder that it refers to.")


def redacted_yaml(text: str, redactor: Redactor) -> str:
    """Return the settings without secrets. They are redacted as objects, because YAML quotes, escapes and folds values."""
    settings = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    return OmegaConf.to_yaml(OmegaConf.create(redactor.value(settings)))


def _records(path: Path, *, repair: bool) -> Iterator[EvaluationRecord]:
    for number, text in enumerate(_whole_lines(path, repair=repair), 1):
        where = f"{path}, line {number}"
        yield EvaluationRecord.parse(outside_files.parse_json(text, where, outside_files.RUN_LINES), where)


def _whole_lines(path: Path, *, repair: bool) -> list[bytes]:
    """Return the complete lines of a file. With `repair`, remove an unfinished last line, because the next line would be joined to it."""
    content = outside_files.read_bytes(path, outside_files.RUN_LINES)
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and repair:
        write_whole(path, whole)
    return outside_files.split_lines(whole, path, outside_files.RUN_LINES)

