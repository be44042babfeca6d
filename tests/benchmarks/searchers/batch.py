"""Many replays: on all cores, and never the same one twice if a file of runs is kept."""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.packed import content, opened
from tests.benchmarks.searchers.replay import Run, replay
from tune_gpu.common.errors import UserError

_BEGINNING = '{"setting": '
"""Of every line of a file of runs."""
_shared: list[Landscape] = []
"""What the worker processes inherit: a landscape holds functions, which cannot be sent."""


@dataclass(frozen=True)
class Setting:
    """What a run depends on beside its seed."""

    landscape: str
    searcher: str
    budget: int
    batch: int
    noise: float
    fingerprint: str | None = None
    """The landscape's; null also in runs that were kept before it was."""


@dataclass
class Runs:
    """Runs that were made before, in a file of one JSON line a run, compressed if its name ends in `.gz`; null: only in memory."""

    path: Path | None
    known: dict[tuple[Setting, int], Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError for a file that holds anything else."""
        if self.path is None or not self.path.exists():
            return
        lines, ended = _kept(self.path)
        for number, text in enumerate(lines, 1):
            try:
                line = json.loads(text)
                run = Run(**line["run"] | {"best": tuple(line["run"]["best"])})
                self.known[Setting(**line["setting"]), line["seed"]] = run
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"runs {self.path}, line {number}: {type(error).__name__} {error}; expected a line of an earlier --runs") from error
        if not ended:
            _rewrite(self.path, lines)

    def add(self, setting: Setting, seed: int, run: Run) -> None:
        """On disk at once: a comparison that is stopped goes on where it was."""
        self.known[setting, seed] = run
        if self.path is not None:
            with opened(self.path, "at") as file:
                file.write(json.dumps({"setting": asdict(setting), "seed": seed, "run": asdict(run)}) + "\n")

    def get(self, landscape: Landscape, setting: Setting, seeds: Sequence[int], jobs: int) -> Iterator[Run]:
        """One run a seed, in the order of the seeds; those that are not known yet are made, `jobs` at a time."""
        wanted = [seed for seed in seeds if self._found(setting, seed) is None]
        fresh = _replays(landscape, setting, wanted, jobs)
        for seed in seeds:
            run = self._found(setting, seed)
            if run is None:
                run = next(fresh)
                self.add(setting, seed, run)
            yield run

    def _found(self, setting: Setting, seed: int) -> Run | None:
        """A run that was kept without a fingerprint counts for every landscape of its name."""
        return self.known.get((setting, seed)) or self.known.get((replace(setting, fingerprint=None), seed))


def _kept(path: Path) -> tuple[list[str], bool]:
    """Its lines, without one that a killed comparison left half written; and whether it ends as it should for the next to be appended."""
    try:
        data, whole = content(path)
        lines = data.decode().splitlines()
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"runs {path}: {type(error).__name__} {error}; expected the file of an earlier --runs") from error
    if lines and _is_half(lines[-1]):
        return lines[:-1], False
    return lines, whole and data[-1:] in (b"", b"\n")


def _is_half(text: str) -> bool:
    """Whether it is the beginning of a line as `Runs.add` writes it; anything else is somebody's, and is not to be dropped."""
    try:
        json.loads(text)
    except ValueError:
        return text.startswith(_BEGINNING[:len(text)])
    return False


def _rewrite(path: Path, lines: Sequence[str]) -> None:
    fresh = path.with_name(f"new-{path.name}")
    with opened(fresh, "wt") as file:
        file.writelines(f"{line}\n" for line in lines)
    fresh.replace(path)


def _replays(landscape: Landscape, setting: Setting, seeds: Sequence[int], jobs: int) -> Iterator[Run]:
    if jobs < 2 or len(seeds) < 2:
        yield from (replay(landscape, setting.searcher, setting.budget, setting.batch, setting.noise, seed) for seed in seeds)
        return
    _shared[:] = [landscape]
    with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(_replay, [(setting, seed) for seed in seeds])


def _replay(task: tuple[Setting, int]) -> Run:
    setting, seed = task
    return replay(_shared[0], setting.searcher, setting.budget, setting.batch, setting.noise, seed)
