"""How a tournament ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.search.ending import Closing, Ended, Over, Phase, Rechecking, Searching, closing, loaded, saved

REASONS = st.sampled_from(Ended)
NUMBERS = st.integers(0, 10_000)
PHASES = st.one_of(st.just(Searching()), st.builds(Rechecking, REASONS, NUMBERS), st.builds(Over, REASONS, NUMBERS))


@given(PHASES)
def test_saved_phase_is_loaded_as_it_was(phase: Phase) -> None:
    assert loaded(json.loads(json.dumps(saved(phase)))) == phase


def test_saved_phase_has_the_keys_and_words_of_kept_searches() -> None:
    assert saved(Searching()) == {"ended_because": None, "ending": None}
    assert saved(Rechecking(Ended.GENERATIONS, 4)) == {"ended_because": None, "ending": ["generations", 4]}
    assert saved(Over(Ended.SPACE_EXHAUSTED, 2)) == {"ended_because": "space exhausted", "ending": ["space exhausted", 2]}


def test_unknown_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="boredom"):
        loaded({"ended_because": None, "ending": ["boredom", 1]})


@pytest.mark.parametrize(
    ("why", "waiting", "rechecks", "limit", "single", "expected"),
    [
        (Ended.GENERATIONS, False, 0, 1, True, Closing.RECHECK),
        (Ended.GENERATIONS, False, 0, 1, False, Closing.END),
        (Ended.GENERATIONS, False, 1, 1, True, Closing.END),
        (Ended.GENERATIONS, True, 0, 1, True, Closing.WAIT),
        (Ended.GENERATIONS, True, 0, 0, True, Closing.END),
        (Ended.SPACE_EXHAUSTED, True, 0, 0, True, Closing.WAIT),
        (Ended.SPACE_EXHAUSTED, True, 2, 2, True, Closing.WAIT),
        (Ended.SPACE_EXHAUSTED, False, 0, 0, True, Closing.END),
        (Ended.SPACE_EXHAUSTED, False, 1, 2, True, Closing.RECHECK),
    ],
)
def test_ended_search_waits_rechecks_or_is_over(why: Ended, waiting: bool, rechecks: int, limit: int, single: bool, expected: Closing) -> None:
    """An exhausted space waits even if nothing is rechecked: a transient failure makes its configuration available again."""
    step = closing(Rechecking(why, 3), waiting=waiting, rechecks=rechecks, limit=limit, needs_recheck=lambda: single)
    assert step is expected
