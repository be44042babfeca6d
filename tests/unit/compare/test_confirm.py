"""Who competes for winner, who is it, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.made_run import FAST, SLOW, line
from tests.support.traffic import replicate
from tune_gpu.common.errors import UserError
from tune_gpu.compare.bootstrap import Effect
from tune_gpu.compare.confirm import check_metrics, confirmed, contenders, standings
from tune_gpu.compare.metrics import ComparedMetric, standard_metrics
from tune_gpu.compare.samples import Replicate
from tune_gpu.compare.verdict import Finding, sentence, tolerance_of
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ConfirmSettings
from tune_gpu.metrics import VOICE_TURN, WER

METRICS = standard_metrics(95)
SETTINGS = ConfirmSettings(metric="voice_turn_ms.p50")
OTHER, THIRD = SLOW | {"whisper_cores": "0-1"}, FAST | {"whisper_cores": "0-1"}


def finding(name: str, estimate: float, low: float, high: float, *, tolerance: float = 0.0) -> Finding:
    metric = next(metric for metric in METRICS if metric.name == name)
    return Finding(metric, Effect(estimate, low, high, 1.0, 1.0, 4, 40, 0.95), tolerance)


def test_a_rival_is_the_best_of_all_its_deployments_not_the_luckiest() -> None:
    lucky = [line("g0-c0", OTHER, 0.3), line("g1-c0", OTHER, 0.9, generation=1), line("g1-c1", FAST, 0.8, generation=1)]
    assert contenders(FAST, SLOW, [*lucky, line("g0-c1", THIRD, 0.7)], 2)["rival-1"] == THIRD


def test_the_searchs_best_compete_beside_the_baseline() -> None:
    lines = [
        line("g0-c0", SLOW, 0.4),
        line("g1-c0", FAST, 0.6, generation=1),
        line("g1-c1", OTHER, 0.5, generation=1),
        line("g1-c2", THIRD, 0.55, generation=1),
        line("g1-c3", SLOW, 0.58, generation=1),
    ]
    assert contenders(FAST, SLOW, lines, 2) == {"winner": FAST, "rival-1": THIRD, "baseline": SLOW}
    assert contenders(FAST, SLOW, lines, 1) == {"winner": FAST, "baseline": SLOW}
    assert list(contenders(FAST, SLOW, lines, 9)) == ["winner", "rival-1", "rival-2", "baseline"]


def deployed(speeds: dict[str, float], rounds: int = 6) -> list[Replicate]:
    replicates = []
    for number in range(rounds):
        clips = np.exp(np.random.default_rng(number).normal(6.5, 0.5, 8))
        replicates += [
            replicate(arm, number, clips, np.random.default_rng([number, i]), speed=speed) for i, (arm, speed) in enumerate(speeds.items())
        ]
    return replicates


def test_the_best_stays_the_winner_unless_a_rival_is_shown_better() -> None:
    arms = {"winner": 0.8, "rival-1": 0.3, "rival-2": 0.82, "baseline": 1.0}
    found = standings(deployed(arms), list(arms), METRICS, SETTINGS, alpha=0.05, seed=0)
    assert found.leader == "rival-1"
    assert confirmed(found.against_baseline, SETTINGS.metric, "")[0]
    arms = {"winner": 0.5, "rival-1": 0.51, "baseline": 1.0}
    found = standings(deployed(arms), list(arms), METRICS, SETTINGS, alpha=0.05, seed=0)
    assert found.leader == "winner"
    assert not found.decided, "who of the two is better is still open"


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "holds", "why"),
    [
        (-40.0, -20.0, 10.0, True, "shown better"),
        (20.0, 40.0, 10.0, False, "shown worse"),
        (-5.0, 6.0, 10.0, False, "no better than the baseline"),
        (-40.0, 6.0, 10.0, False, "no difference from the baseline is shown"),
    ],
)
def test_confirmed_only_where_the_whole_interval_is_better(low: float, high: float, tolerance: float, holds: bool, why: str) -> None:
    found = [finding("voice_turn_ms.p95", (low + high) / 2, low, high, tolerance=tolerance)]
    decided = confirmed(found, "voice_turn_ms.p95", "the budget of 60 s ended after 4 rounds")
    assert decided[0] is holds
    assert why in decided[1]
    if "shown:" in decided[1]:
        assert "the budget of 60 s ended after 4 rounds" in decided[1]


def test_what_a_person_would_say() -> None:
    message = sentence(
        [
            finding("voice_turn_ms.p95", -38.0, -44.0, -31.0),
            finding("wer", 0.001, -0.004, 0.006, tolerance=0.01),
            finding("failed_pct", 0.0, 0.0, 0.0),
            finding("capacity", 2.0, 1.2, 2.8),
        ]
    )
    assert message == "winner answers 38 % sooner at p95 (31 … 44), transcribes no worse, serves 2 more callers"
    message = sentence(
        [
            finding("voice_turn_ms.p95", 12.0, 3.0, 20.0),
            finding("wer", 0.03, 0.01, 0.05),
            finding("failed_pct", 4.0, 1.0, 7.0),
            finding("capacity", -1.0, -1.5, -0.5),
        ],
        "other",
    )
    assert message == (
        "other answers 12 % later at p95 (3 … 20), transcribes worse (3.0 more errors in 100 words), "
        "serves 1 fewer caller, fails more turns (4.0 points)"
    )
    open_ = sentence([finding("voice_turn_ms.p95", -5.0, -30.0, 20.0, tolerance=10.0), finding("wer", 0.0, -0.1, 0.1, tolerance=0.01)])
    assert open_ == "winner shows no difference in speed at p95 (-30 … +20 %), leaves open how it transcribes"


def test_a_person_is_told_what_errors_are_counted_in() -> None:
    wer = next(metric for metric in standard_metrics(95, "character") if metric.name == "wer")
    worse = Finding(wer, Effect(0.03, 0.01, 0.05, 1.0, 1.0, 4, 40, 0.95), 0.0)
    assert "(3.0 more errors in 100 characters)" in sentence([finding("voice_turn_ms.p95", 12.0, 3.0, 20.0), worse])
    assert "CER" in worse.text


def test_a_verdict_in_a_metric_where_more_is_better_has_its_sign() -> None:
    assert str(finding("capacity", 2.0, 1.0, 3.0).verdict) == "better"
    assert str(finding("wer", 0.02, 0.01, 0.03).verdict) == "worse"
    assert finding("wer", 0.0, -0.02, 0.005, tolerance=0.01).not_worse
    assert tolerance_of(ComparedMetric(VOICE_TURN, 95), {"voice_turn_ms": 5.0, "voice_turn_ms.p95": 7.0}) == 7.0
    assert tolerance_of(ComparedMetric(VOICE_TURN, 50), {"voice_turn_ms": 5.0}) == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "speed"}, r"confirm\.metric=speed: not allowed. Set one of voice_turn_ms\.p95"),
        ({"min_rounds": 1}, r"confirm\.min_rounds=1: out of range. Set a number of at least 3"),
        ({"min_rounds": 9, "max_rounds": 5}, r"confirm\.max_rounds=5"),
        ({"confidence": 1.0}, r"confirm\.confidence=1\.0"),
        ({"tolerances": {"speed": 1.0}}, r"confirm\.tolerances\.speed: no such metric"),
        ({"tolerances": {"wer": -1.0}}, r"confirm\.tolerances\.wer=-1\.0: out of range. Set a number of at least 0"),
        ({"windows": 0}, r"confirm\.windows=0"),
    ],
)
def test_settings_that_make_no_comparison_are_refused(change: dict[str, Any], message: str) -> None:
    def checked() -> None:
        check(ConfirmSettings(**change), "confirm.")
        check_metrics(ConfirmSettings(**change), 95)

    with pytest.raises(UserError, match=message):
        checked()


def test_an_error_rate_has_four_digits_in_words_and_in_characters() -> None:
    """A list of units gave CER one digit, so that a difference of 3 in 100 read +0.0."""
    rates = [next(metric for metric in standard_metrics(95, unit) if metric.entry is WER) for unit in ("word", "character")]
    effect = Effect(0.03, 0.02, 0.04, 0.13, 0.1, 4, 40, 0.95)
    assert [Finding(rate, effect, 0.01).text for rate in rates] == ["+0.0300 WER (+0.0200 … +0.0400)", "+0.0300 CER (+0.0200 … +0.0400)"]
