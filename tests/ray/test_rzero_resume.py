"""Killed in generation 3 and restored by Tune: the same proposals, and nothing measured twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.ray.killed_driver import SPACE, STUCK_S, score, settings
from tune_gpu.config.schema import ParameterSpec
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result, Tournament

pytestmark = pytest.mark.ray


def uninterrupted(algorithm: str) -> list[str]:
    space = SearchSpace.from_specs({name: ParameterSpec(target="", values=list(values)) for name, values in SPACE.items()})
    tournament, seen = Tournament(space, settings(algorithm)), []
    while (candidate := tournament.ask()) is not None:
        seen.append(f"{candidate.candidate_id} {candidate.params}")
        tournament.tell(candidate.candidate_id, Result("ok", score(candidate.params), n_windows=1))
    return seen


def drive(folder: Path, action: str, algorithm: str) -> int:
    command = [sys.executable, "-m", "tests.ray.killed_driver", str(folder), action, algorithm]
    printed = folder / f"{action}.txt"
    with printed.open("w") as output:
        try:
            return subprocess.run(command, timeout=STUCK_S + 10, stdout=output, stderr=output, check=False).returncode
        except subprocess.TimeoutExpired:
            pytest.fail(f"{action} does not end:\n{printed.read_text()[-4000:]}")


@pytest.mark.parametrize("algorithm", ["rzero", pytest.param("classic", marks=pytest.mark.soak)])
def test_killed_in_generation_3_it_goes_on_and_measures_nothing_twice(tmp_path: Path, algorithm: str) -> None:
    assert drive(tmp_path, "run", algorithm) == -signal.SIGKILL
    before = (tmp_path / "log").read_text().splitlines()
    assert before[-1].startswith("g3-c1"), "killed in the middle of generation 3"
    assert drive(tmp_path, "resume", algorithm) == 0
    log = (tmp_path / "log").read_text().splitlines()
    expected = uninterrupted(algorithm)
    assert (tmp_path / "ended").read_text() == f"{len(expected)} 0"
    assert list(dict.fromkeys(log)) == expected, "it proposes what it would have proposed"
    again = {line for line, count in Counter(log).items() if count > 1}
    assert again <= {before[-1]}, "only what was in flight is measured again"
