"""A soak: its plan, and going on after a stop. The services are left out: the measurements come from a generator of numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.coverage.recorded import predicted, read
from tests.benchmarks.soak import CONFIGURATIONS, order, soak, whole_lines
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.evaluation.measurement import Measurement, Score, Status


class Numbers:
    """Measures by a generator of numbers; the third deployment fails, and `stops_after` interrupts it."""

    def __init__(self, stops_after: int | None = None) -> None:
        self.deployed: list[dict[str, Any]] = []
        self._rng, self._stops_after = np.random.default_rng(len(self.deployed)), stops_after

    def evaluate(self, params: Mapping[str, Any]) -> Measurement:
        if len(self.deployed) == self._stops_after:
            raise KeyboardInterrupt
        self.deployed.append(dict(params))
        if len(self.deployed) == 3:
            return Measurement.failed(Failure(FailureKind.STARTUP_TIMEOUT, "vllm", Phase.START, "it did not start"), "cpu")
        return Measurement(Status.OK, "cpu", score=Score(float(self._rng.normal(0.6, 0.01)), 0.01), n_windows=3)


def test_a_soak_deploys_each_configuration_as_often_in_random_order() -> None:
    planned = order(15, 0)
    assert Counter(planned) == dict.fromkeys(range(len(CONFIGURATIONS)), 15)
    assert planned != sorted(planned)
    assert planned == order(15, 0)
    assert planned != order(15, 1)


def test_a_stopped_soak_goes_on_and_coverage_reads_it(tmp_path: Path) -> None:
    out, planned = tmp_path / "soak.jsonl", order(3, 0)
    first, second = Numbers(stops_after=5), Numbers()
    with pytest.raises(KeyboardInterrupt):
        soak(first, out, planned)
    with out.open("a") as file:
        file.write('{"c": 1, "cut')
    soak(second, out, planned)
    assert [*first.deployed, *second.deployed] == [CONFIGURATIONS[c] for c in planned]
    assert [json.loads(line)["c"] for line in out.read_text().splitlines()] == planned
    assert len(predicted(read(out))) == 10, "twelve less two that failed"


@pytest.mark.parametrize("text", ['{"c": 9}\n', "no json\n", '{"d": 1}\n', "[1]\n"])
def test_a_file_of_another_soak_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    out = tmp_path / "soak.jsonl"
    out.write_text(text)
    with pytest.raises(UserError, match="not the deployments of this plan"):
        whole_lines(out, order(2, 0))
    assert out.read_text() == text
