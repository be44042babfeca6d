"""Rounds go on until it is decided or over; what is on disk is never measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.traffic import replicate
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.rounds import FIRST_WINDOW, PairedExperiment, Rules, findings_of
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.sequential import final_alpha, interim_alpha
from tune_gpu.compare.store import ReplicateStore

RULES = Rules(0.95, 3, 8, 1e9, 2, {"fitness": 0.001}, 0)
ARMS = ["winner", "baseline"]
METRICS = standard_metrics(95)


class Lab:
    """Makes replicates, and remembers what it was asked."""

    def __init__(self, winner_speed: float = 0.5) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.speed = {"winner": winner_speed}

    def __call__(self, arm: str, number: int, first_window: int) -> Replicate:
        self.asked.append((arm, number, first_window))
        clips = np.exp(np.random.default_rng(number).normal(6.5, 0.5, 6))
        return replicate(arm, number, clips, np.random.default_rng([number, len(arm)]), speed=self.speed.get(arm, 1.0))


def store(tmp_path: Path, **terms: object) -> ReplicateStore:
    return ReplicateStore(tmp_path / "comparison.jsonl", {"arms": ARMS, **terms})


def never(_replicates: Sequence[Replicate], _alpha: float) -> bool:
    return False


def speed_is_shown(replicates: Sequence[Replicate], alpha: float) -> bool:
    ours, theirs = ARMS
    return findings_of(replicates, ours, theirs, METRICS[:1], alpha=alpha, tolerances={}, seed=0)[0].decided


def test_each_round_has_every_arm_once_and_traffic_of_its_own(tmp_path: Path) -> None:
    lab = Lab()
    outcome = PairedExperiment(ARMS, RULES, store(tmp_path), lab).run(never)
    assert (outcome.ended, outcome.n_rounds, outcome.wall_s) == ("rounds", 8, 160.0)
    for number in range(8):
        asked = [(arm, window) for arm, n, window in lab.asked if n == number]
        assert sorted(arm for arm, _ in asked) == sorted(ARMS)
        assert {window for _, window in asked} == {FIRST_WINDOW + 2 * number}
    order = [arm for arm, _, _ in lab.asked]
    assert order[0:2] == order[2:4][::-1], "A B B A"


def test_it_ends_as_soon_as_the_difference_is_shown(tmp_path: Path) -> None:
    outcome = PairedExperiment(ARMS, RULES, store(tmp_path), Lab(0.3)).run(speed_is_shown)
    assert outcome.ended == "decided"
    assert RULES.min_rounds <= outcome.n_rounds < RULES.max_rounds
    assert outcome.alpha < 0.05, "a look at a comparison that could have gone on spends less than all"


def test_equal_arms_use_up_the_budget_and_the_last_look_the_rest(tmp_path: Path) -> None:
    outcome = PairedExperiment(ARMS, replace(RULES, budget_s=90.0), store(tmp_path), Lab(1.0)).run(speed_is_shown)
    assert (outcome.ended, outcome.n_rounds, outcome.wall_s) == ("budget", 4, 80.0)
    assert "the budget of 90 s ended after 4 rounds" in outcome.why
    assert 0.025 <= outcome.alpha < 0.05


def test_what_the_first_deployment_pays_once_is_not_expected_of_the_next(tmp_path: Path) -> None:
    lab = Lab(1.0)

    def slow_first(arm: str, number: int, window: int) -> Replicate:
        made = lab(arm, number, window)
        return replace(made, wall_s=40.0) if len(lab.asked) == 1 else made

    outcome = PairedExperiment(ARMS, replace(RULES, budget_s=90.0), store(tmp_path), slow_first).run(never)
    assert (outcome.ended, outcome.n_rounds, outcome.wall_s) == ("budget", 3, 90.0)


@pytest.mark.parametrize("after", [1, 4, 5])
def test_stopped_anywhere_it_goes_on_where_it_was_and_ends_the_same(tmp_path: Path, after: int) -> None:
    (tmp_path / "whole").mkdir()
    expected = PairedExperiment(ARMS, RULES, store(tmp_path / "whole"), Lab(0.6)).run(speed_is_shown)
    lab = Lab(0.6)

    def stops(arm: str, number: int, window: int) -> Replicate:
        if len(lab.asked) == after:
            raise KeyboardInterrupt
        return lab(arm, number, window)

    stopped = PairedExperiment(ARMS, RULES, store(tmp_path), stops).run(speed_is_shown)
    assert stopped.ended == "interrupted"
    assert len(stopped.replicates) == after
    again = Lab(0.6)
    resumed = PairedExperiment(ARMS, RULES, store(tmp_path), again).run(speed_is_shown)
    assert lab.asked + again.asked == [(b.arm, b.round, FIRST_WINDOW + 2 * b.round) for b in expected.replicates]
    assert resumed == expected


def test_a_resumed_comparison_pays_for_each_look_once(tmp_path: Path) -> None:
    """It looks at the same rounds as before."""
    def looks_at(until: int) -> tuple[list[tuple[int, float]], float]:
        seen: list[tuple[int, float]] = []

        def looked(replicates: Sequence[Replicate], alpha: float) -> bool:
            seen.append((len(replicates), alpha))
            return False

        return seen, PairedExperiment(ARMS, replace(RULES, max_rounds=until), store(tmp_path), Lab(1.0)).run(looked).alpha

    first, _ = looks_at(6)
    assert [n for n, _ in first] == [6, 8, 10]
    again, alpha = looks_at(8)
    assert again[:3] == first, "as if it had never been stopped"
    assert [(n, pytest.approx(spent)) for n, spent in again[3:]] == [(12, interim_alpha(4, 0.05)), (14, interim_alpha(5, 0.05))]
    assert looks_at(8) == (again, alpha)
    assert alpha == pytest.approx(final_alpha(5, 0.05))


def test_half_a_line_is_cut_off_and_blocks_of_other_terms_are_put_aside(tmp_path: Path) -> None:
    PairedExperiment(ARMS, replace(RULES, max_rounds=3), store(tmp_path), Lab()).run(never)
    path = tmp_path / "comparison.jsonl"
    with path.open("a") as file:
        file.write('{"arm": "winner", "rou')
    assert len(store(tmp_path).replicates()) == 6
    assert path.read_text().endswith("\n")
    assert store(tmp_path, seed=1).replicates() == []
    assert (tmp_path / "comparison.jsonl.old").exists()
    path.write_text("what is this\n")
    assert store(tmp_path).replicates() == []


def test_a_rival_that_cannot_start_leaves_the_others_to_compete(tmp_path: Path) -> None:
    lab, arms = Lab(), ["winner", "rival-1", "baseline"]

    def no_rival(arm: str, number: int, window: int) -> Replicate:
        if arm == "rival-1":
            lab.asked.append((arm, number, window))
            return Replicate(arm, number, failure={"kind": "startup_oom", "message": "no room", "retryable": False})
        return lab(arm, number, window)

    outcome = PairedExperiment(arms, RULES, store(tmp_path), no_rival, required=ARMS).run(never)
    assert (outcome.ended, outcome.n_rounds) == ("rounds", 8)
    assert [arm for arm, _, _ in lab.asked].count("rival-1") == 1


@pytest.mark.parametrize(("retryable", "tries"), [(False, 1), (True, 2)])
def test_an_arm_that_cannot_start_ends_it_with_the_reason(tmp_path: Path, retryable: bool, tries: int) -> None:
    lab = Lab()

    def no_baseline(arm: str, number: int, window: int) -> Replicate:
        if arm == "winner":
            return lab(arm, number, window)
        lab.asked.append((arm, number, window))
        return Replicate(arm, number, failure={"kind": "startup_no_kv_memory", "message": "too small", "retryable": retryable})

    outcome = PairedExperiment(ARMS, RULES, store(tmp_path), no_baseline).run(never)
    assert (outcome.ended, outcome.n_rounds) == ("failed", 0)
    assert outcome.why == "baseline cannot be measured: startup_no_kv_memory: too small"
    assert [arm for arm, _, _ in lab.asked].count("baseline") == tries
