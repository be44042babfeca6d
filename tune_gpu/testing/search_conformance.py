"""Conformance tests for searchers of Ray Tune: one whose tests pass can drive a run, fail trials, and be killed and resumed.

Derive from `SearcherConformance`, and define the fixtures `make` and `space`:

    class TestMySearch(SearcherConformance):
        @pytest.fixture
        def space(self) -> Mapping[str, Sequence[Any]]:
            return {"x": [1, 2, 3, 4], "mode": ["a", "b"]}

        @pytest.fixture
        def make(self, space: Mapping[str, Sequence[Any]]) -> Callable[[], Searcher]:
            return lambda: MySearch(space, metric="score", mode="max", seed=0)

Two searchers that `make` returns must be alike. Nothing is measured, so the tests take a moment.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

METRIC = "score"
_MANY = 2000
"""More suggestions than a search of the tests' size may need."""

Suggestion = dict[str, Any]


class SearcherConformance:
    """What holds for every searcher."""

    at_once = 2
    """Trials in flight at the same time."""

    def score(self, params: Suggestion) -> float:
        """Return the metric of a candidate. It depends on the candidate alone."""
        return float(sum(json.dumps(params, sort_keys=True, default=str).encode()) % 97)

    def run(self, search: Searcher, result_of: Callable[[str, Suggestion], Mapping[str, Any] | None]) -> list[Suggestion]:
        """Run a search to its end and return all suggestions. A result of None stands for a trial that raised.

        The oldest trial in flight ends first. Fail if the search waits for results while nothing is in flight, or does not end.
        """
        return [params for _, params in self.steps(search, result_of)]

    def steps(
        self, search: Searcher, result_of: Callable[[str, Suggestion], Mapping[str, Any] | None], prefix: str = "t"
    ) -> Iterator[tuple[str, Suggestion]]:
        """Yield each suggestion with its trial, before the trial has ended."""
        in_flight: dict[str, Suggestion] = {}
        for number in range(_MANY):
            trial = f"{prefix}{number}"
            given = search.suggest(trial) if len(in_flight) < self.at_once else None
            if given == Searcher.FINISHED and not in_flight:
                return
            if isinstance(given, dict):
                in_flight[trial] = given
                yield trial, given
                continue
            assert in_flight, "it waits for results while no trial is in flight, which hangs Tune"
            oldest = next(iter(in_flight))
            self.end(search, oldest, result_of(oldest, in_flight.pop(oldest)))
        pytest.fail(f"it has not ended after {_MANY} steps")

    def end(self, search: Searcher, trial: str, result: Mapping[str, Any] | None) -> None:
        """End a trial as Tune does: with its last result, or with an error."""
        if result is None:
            search.on_trial_complete(trial, error=True)
            return
        search.on_trial_result(trial, dict(result))
        search.on_trial_complete(trial, dict(result))

    def scored(self, _trial: str, params: Suggestion) -> Mapping[str, Any]:
        """Return the report of a trial that went well."""
        return {METRIC: self.score(params)}

    def test_it_has_the_metric_and_the_mode_of_the_suite(self, make: Callable[[], Searcher]) -> None:
        search = make()
        assert (search.metric, search.mode) == (METRIC, "max")

    def test_every_suggestion_is_in_the_space(self, make: Callable[[], Searcher], space: Mapping[str, Sequence[Any]]) -> None:
        suggested = self.run(make(), self.scored)
        assert suggested
        for params in suggested:
            assert params.keys() <= space.keys()
            assert all(value in space[name] for name, value in params.items())

    def test_two_that_are_alike_suggest_the_same(self, make: Callable[[], Searcher]) -> None:
        assert self.run(make(), self.scored) == self.run(make(), self.scored)

    @pytest.mark.parametrize("report", [None, {METRIC: math.nan}, {}], ids=["raised", "nan", "empty"])
    def test_failed_trials_do_not_stop_it(self, make: Callable[[], Searcher], report: Mapping[str, Any] | None) -> None:
        """Let every third trial fail, and end in this way."""
        n_ended = 0

        def result_of(trial: str, params: Suggestion) -> Mapping[str, Any] | None:
            nonlocal n_ended
            n_ended += 1
            return report if n_ended % 3 == 0 else self.scored(trial, params)

        assert len(self.run(make(), result_of)) >= 3

    def test_a_search_in_which_all_fails_ends(self, make: Callable[[], Searcher]) -> None:
        assert self.run(make(), lambda _trial, _params: {METRIC: math.nan})

    def test_results_of_trials_that_it_does_not_know_change_nothing(self, make: Callable[[], Searcher]) -> None:
        search = make()
        search.on_trial_result("somebody_elses", {METRIC: 1e9})
        search.on_trial_complete("somebody_elses", {METRIC: 1e9})
        search.on_trial_complete("another_ones", error=True)
        assert self.run(search, self.scored) == self.run(make(), self.scored)

    def test_a_copy_goes_on_as_the_original_would(self, make: Callable[[], Searcher]) -> None:
        assert self.run(copy.deepcopy(make()), self.scored) == self.run(make(), self.scored)

    def test_restored_after_any_result_it_goes_on_as_it_would_have(self, make: Callable[[], Searcher], tmp_path: Path) -> None:
        """Save with nothing in flight, one trial at a time."""
        whole = self._one_by_one(make(), self.scored)
        for n_before in {0, 1, len(whole) // 2, len(whole) - 1}:
            search, path = make(), tmp_path / f"search{n_before}"
            before = self._one_by_one(search, self.scored, n_before)
            search.save(str(path))
            later = make()
            later.restore(str(path))
            assert before + self._one_by_one(later, self.scored, prefix="u") == whole

    def test_restored_it_suggests_again_what_was_in_flight(self, make: Callable[[], Searcher], tmp_path: Path) -> None:
        """Kill the run between two suggestions: no candidate is lost."""
        search = make()
        open_ = [params for params in (search.suggest(f"t{number}") for number in range(self.at_once)) if isinstance(params, dict)]
        assert open_
        search.save(str(tmp_path / "search"))
        later = make()
        later.restore(str(tmp_path / "search"))
        again = [params for params in (later.suggest(f"u{number}") for number in range(len(open_))) if isinstance(params, dict)]
        assert sorted(map(str, again)) == sorted(map(str, open_))

    def test_a_damaged_checkpoint_is_refused(self, make: Callable[[], Searcher], tmp_path: Path) -> None:
        """Cut a checkpoint off in the middle, as a full disk does: it must not be taken for a new search."""
        search = make()
        self._one_by_one(search, self.scored, 2)
        path = tmp_path / "search"
        search.save(str(path))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(Exception):  # noqa: B017 - each searcher has an error of its own
            make().restore(str(path))

    def _one_by_one(
        self, search: Searcher, result_of: Callable[[str, Suggestion], Mapping[str, Any] | None], most: int = _MANY, prefix: str = "t"
    ) -> list[Suggestion]:
        found: list[Suggestion] = []
        while len(found) < most:
            trial = f"{prefix}{len(found)}"
            given = search.suggest(trial)
            if not isinstance(given, dict):
                assert given == Searcher.FINISHED, "it waits for results while no trial is in flight, which hangs Tune"
                return found
            found.append(given)
            self.end(search, trial, result_of(trial, given))
        return found
