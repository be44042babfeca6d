"""Many replays: on all cores, and never the same one twice if a file of runs is kept."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.benchmarks.searchers.landscapes import Landscape
from tests.benchmarks.searchers.packed import opened
from tests.benchmarks.searchers.replay import Run, replay

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


@dataclass
class Runs:
    """Runs that were made before, in a file of one JSON line a run, compressed if its name ends in `.gz`; null: only in memory."""

    path: Path | None
    known: dict[tuple[Setting, int], Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            with opened(self.path, "rt") as file:
                for text in file:
                    line = json.loads(text)
                    run = Run(**line["run"] | {"best": tuple(line["run"]["best"])})
                    self.known[Setting(**line["setting"]), line["seed"]] = run

    def add(self, setting: Setting, seed: int, run: Run) -> None:
        """On disk at once: a comparison that is stopped goes on where it was."""
        self.known[setting, seed] = run
        if self.path is not None:
            with opened(self.path, "at") as file:
                file.write(json.dumps({"setting": asdict(setting), "seed": seed, "run": asdict(run)}) + "\n")

    def get(self, landscape: Landscape, setting: Setting, seeds: Sequence[int], jobs: int) -> Iterator[Run]:
        """One run a seed, in the order of the seeds; those that are not known yet are made, `jobs` at a time."""
        wanted = [seed for seed in seeds if (setting, seed) not in self.known]
        fresh = _replays(landscape, setting, wanted, jobs)
        for seed in seeds:
            if (setting, seed) not in self.known:
                self.add(setting, seed, next(fresh))
            yield self.known[setting, seed]


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
