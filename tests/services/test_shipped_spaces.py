"""The spaces that ship, on real services and weights: two evaluations each, and the better one wins. `launch SPACE` runs them whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import SearchSettings
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.evaluation.deployers import LocalDeployer
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Status
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result, Tournament
from tune_gpu.services.vllm.kind import VllmHost
from tune_gpu.services.vllm.launch import ForkServer

QUICK = [
    "traffic.windows=1", "traffic.window_s=1.5", "traffic.turn_rate_per_s=2", "traffic.max_tokens=4", "traffic.warmup_turns=1", "traffic.capacity_step_s=0",
    "traffic.audio.noise_snr_db=[null]", "objective.weights.capacity=0", "run.hang_timeout_s=60", "telemetry.max_invalid_windows=20",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A space, and a second candidate that differs from its baseline in one service."""

    space: str
    other: Mapping[str, Any]
    kept: tuple[str, ...] = ()
    """Services that the second candidate shares with the first."""

    def __str__(self) -> str:
        return self.space


CASES = [
    Case("llm_only", {"llm_sequences": 4}),
    Case("voice_assistant", {"stt_size": "tiny.en"}, kept=("embed", "llm", "tts")),
    pytest.param(Case("stt_only", {"stt_beam": 1}), marks=pytest.mark.soak),
    pytest.param(Case("two_llms", {"chat_sequences": 2}, kept=("draft",)), marks=pytest.mark.soak),
]


@pytest.fixture
def evaluator(request: pytest.FixtureRequest, host: ForkServer) -> Iterator[Evaluator]:
    config = load_config(request.node.callspec.params["case"].space, QUICK, "cpu")
    evaluator = Evaluator(config, "cpu", deploy=LocalDeployer(config, "cpu", {"vllm": VllmHost("cpu", host)}))
    yield evaluator
    evaluator.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_space_that_ships_finds_the_better_of_two(case: Case, evaluator: Evaluator) -> None:
    config = evaluator.config
    tournament = Tournament(
        SearchSpace.from_specs(config.parameters), SearchSettings(initial=2, generations=1, recheck=0), baseline=config.baseline,
        points=[{**config.baseline, **case.other}],
    )  # fmt: skip
    fitness: dict[str, float | None] = {}
    while (candidate := tournament.ask()) is not None:
        found = evaluator.evaluate(candidate.params)
        assert found.status is Status.OK, found.failure
        assert found.score is not None
        assert found.metrics["n_failed"] == 0, found.metrics["failed_requests"]
        for metric in catalogue_for(config).terms().values():
            if metric.many and metric.term and config.objective.weights.get(metric.term.name):
                assert found.metrics[metric.name]["n"] > 0, f"{metric.name} was measured"
        fitness[candidate.candidate_id] = found.score.fitness
        tournament.tell(candidate.candidate_id, Result("ok", found.score.fitness, n_windows=found.n_windows))
    assert len(fitness) == 2
    assert {name for name, seconds in found.timings.start_s.items() if seconds == 0.0} >= set(case.kept)
    best = tournament.best()
    assert best is not None
    assert best.fitness == max(value for value in fitness.values() if value is not None)
