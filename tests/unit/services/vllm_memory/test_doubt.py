"""The range of a prediction, judged on starts that it was not fitted to."""

from __future__ import annotations

import pytest

from tests.benchmarks.preflight import evaluate, load_rows, own_files
from tests.benchmarks.preflight_doubt import Miss, cross_validate, family_of, lines_of, misses, source_of
from tests.benchmarks.preflight_groups import groups_of


def made(error: float, model: str = "qwen", half: float = 0.1) -> Miss:
    return Miss(model, model, error, half)


def test_a_family_is_judged_by_the_width_of_the_others() -> None:
    """Nine starts of one family are close; the one of the other is not, and does not widen the range that judges it."""
    found = [*[made(0.5) for _ in range(9)], made(3.0, "llama")]
    done = cross_validate(found, source_of)
    assert done is not None
    assert (done.groups, done.held, done.starts) == (2, 9, 10)


def test_a_range_that_is_far_too_narrow_shows() -> None:
    narrow = [made(error, model) for model in ("qwen", "llama", "gemma") for error in (2.0, 4.0, 6.0)]
    done = cross_validate(narrow, source_of)
    assert done is not None
    assert done.scale >= 4


def test_one_family_alone_cannot_be_left_out() -> None:
    assert cross_validate([made(0.1), made(0.2)], source_of) is None


@pytest.mark.parametrize(("model", "family"), [
    ("Qwen/Qwen3-8B", "qwen3"), ("meta-llama/Meta-Llama-3-8B", "llama-3"), ("openai/gpt-oss-20b", "gpt-"), ("unsloth/Llama-3.2-3B", "llama-3"),
])
def test_families_by_name(model: str, family: str) -> None:
    assert family_of(made(0.0, model)) == family


def test_nine_of_ten_logged_starts_hold_with_their_family_left_out() -> None:
    cases = [case for file, archs in own_files() for case in evaluate(load_rows(file), archs)["cases"]]
    found = misses(cases)
    for group_of in (family_of, source_of):
        done = cross_validate(found, group_of)
        assert done is not None
        assert done.starts >= 50
        assert done.held >= 0.88 * done.starts
        assert 0.6 < done.scale < 1.2  # the present width is the one that the data ask for
    assert any("model family left out" in line for line in lines_of(cases))


def test_the_figures_that_are_promised_for_what_people_run_now() -> None:
    by_file = {file.stem: evaluate(load_rows(file), archs)["cases"] for file, archs in own_files()}
    groups = groups_of(by_file)
    recent, new, whole = groups["all, 0.20 and later"], groups["third_cases"], groups["all"]
    assert recent["blind"] >= 12
    assert recent["median"] <= 0.02
    assert recent["p90"] <= 0.10
    assert new["ranges_held"] >= 0.9 * new["ranges"]
    assert new["not_modelled"] <= 1
    assert whole["verdicts_right"] >= 0.97 * whole["verdicts"]
    assert not whole["firm_fits_that_failed"]
