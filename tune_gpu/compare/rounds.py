"""Run rounds until every difference is decided, or the budget ends. Independent of Ray and services."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.common.wording import counted
from tune_gpu.compare.bootstrap import effect_of
from tune_gpu.compare.metrics import ComparedMetric
from tune_gpu.compare.samples import Replicate, pairs_of
from tune_gpu.compare.sequential import final_alpha, interim_alpha, order_of_round
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.compare.verdict import Finding, tolerance_of

FIRST_WINDOW = 100
"""Comparisons have traffic of their own: a winner is not judged on the traffic that chose it."""
_MAX_FAILURES = 2


@dataclass(frozen=True)
class Rules:
    """When a comparison looks and ends."""

    confidence: float
    min_rounds: int
    max_rounds: int
    budget_s: float
    windows: int
    tolerances: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """How a comparison ended."""

    ended: ComparisonEnd
    why: str
    n_rounds: int
    alpha: float
    """The error that the last look may spend. The findings' intervals have confidence 1 - alpha."""
    replicates: tuple[Replicate, ...]
    wall_s: float


Measure = Callable[[str, int, int], Replicate]
"""Arm, round, first window -> replicate."""
Decided = Callable[[Sequence[Replicate], float], bool]
"""Whether these replicates leave nothing open at this alpha."""


class PairedExperiment:
    """One comparison of two or more arms.

    Args:
        arms: their names.
        rules: when it ends.
        store: keeps replicates; those that it has are not measured again.
        measure: deploys an arm and measures it.
        on_replicate: called for each replicate before it (None) and after it.
        required: arms without which there is nothing to compare (None: all). Any other arm is dropped if it cannot be measured.
    """

    def __init__(
        self,
        arms: Sequence[str],
        rules: Rules,
        store: ReplicateStore,
        measure: Measure,
        on_replicate: Callable[[str, int, Replicate | None], None] = lambda *_: None,
        required: Collection[str] | None = None,
    ) -> None:
        self._required = set(arms if required is None else required)
        self._arms, self._rules, self._store, self._measure, self._on_replicate = list(arms), rules, store, measure, on_replicate
        self._replicates = store.replicates()
        self._looks = 0

    @property
    def n_rounds(self) -> int:
        """Return the number of rounds in which every arm was measured."""
        return self._whole(self._replicates)

    def _whole(self, replicates: Sequence[Replicate]) -> int:
        measured = {(replicate.arm, replicate.round) for replicate in replicates if replicate.failure is None}
        return sum(all((arm, number) in measured for arm in self._arms) for number in {replicate.round for replicate in replicates})

    def _before(self, number: int) -> list[Replicate]:
        """Return the replicates that were known when this round began. A resumed comparison looks at the same rounds as
        before, so that no error is spent twice."""
        return [replicate for replicate in self._replicates if replicate.round < number]

    @property
    def _spent_s(self) -> float:
        return sum(replicate.wall_s for replicate in self._replicates)

    def run(self, decided: Decided) -> Outcome:
        """Run the comparison to its end. A KeyboardInterrupt ends it early, and the outcome says so."""
        try:
            return self._run(decided)
        except KeyboardInterrupt:
            return self.stopped(ComparisonEnd.INTERRUPTED, "it was interrupted")

    def stopped(self, ended: ComparisonEnd, why: str) -> Outcome:
        """Return the outcome so far of a comparison that was ended from outside."""
        return self._outcome(ended, why, final_alpha(self._looks, self._alpha))

    @property
    def _alpha(self) -> float:
        return 1.0 - self._rules.confidence

    def _run(self, decided: Decided) -> Outcome:
        number = 0
        while True:
            if why := self._broken():
                return self._outcome(ComparisonEnd.FAILED, why, final_alpha(self._looks, self._alpha))
            if (over := self._over(number)) is not None:
                return self._outcome(*over, final_alpha(self._looks, self._alpha))
            self._round(number)
            number += 1
            known = self._before(number)
            if self._rules.min_rounds <= self._whole(known) < self._rules.max_rounds:
                self._looks += 1
                spend = interim_alpha(self._looks, self._alpha)
                if decided(known, spend):
                    return self._outcome(ComparisonEnd.DECIDED, "every difference asked for is shown or ruled out", spend, known)

    def _over(self, number: int) -> tuple[ComparisonEnd, str] | None:
        if self._whole(self._before(number)) >= self._rules.max_rounds:
            return ComparisonEnd.ROUNDS, f"all {self._rules.max_rounds} rounds are measured"
        missing = self._missing(number)
        typical = self._replicates[1:] or self._replicates  # the first deployment includes one-off costs such as imports
        each_s = sum(replicate.wall_s for replicate in typical) / len(typical) if typical else 0.0
        if missing and (self._rules.budget_s <= 0 or self._spent_s + each_s * len(missing) > self._rules.budget_s):
            return ComparisonEnd.BUDGET, f"the budget of {self._rules.budget_s:g} s ended after {counted(self.n_rounds, 'round')} ({self._spent_s:.0f} s)"
        return None

    def _missing(self, number: int) -> list[str]:
        there = {replicate.arm for replicate in self._replicates if replicate.round == number}
        return [arm for arm in order_of_round(self._arms, number, self._rules.seed) if arm not in there]

    def _round(self, number: int) -> None:
        for arm in self._missing(number):
            self._on_replicate(arm, number, None)
            replicate = self._measure(arm, number, FIRST_WINDOW + number * self._rules.windows)
            self._store.append(replicate)
            self._replicates.append(replicate)
            self._on_replicate(arm, number, replicate)
            if self._broken():
                return

    def _broken(self) -> str | None:
        """Return why the comparison ends: a required arm fails permanently or repeatedly. An optional arm is dropped instead."""
        for arm in list(self._arms):
            failures = [replicate.failure for replicate in self._replicates if replicate.arm == arm and replicate.failure is not None]
            if failures and (len(failures) >= _MAX_FAILURES or not failures[-1].get("retryable")):
                if arm not in self._required:
                    self._arms.remove(arm)
                    continue
                last = failures[-1]
                return f"{arm} cannot be measured: {last['kind']}: {last['message']}"
        return None

    def _outcome(self, ended: ComparisonEnd, why: str, alpha: float, known: Sequence[Replicate] | None = None) -> Outcome:
        """Return the outcome by all replicates, or by those that were known when it was decided."""
        replicates = self._replicates if known is None else known
        return Outcome(ended, why, self._whole(replicates), alpha, tuple(replicates), round(self._spent_s, 1))


def findings_of(
    replicates: Sequence[Replicate], ours: str, theirs: str, metrics: Sequence[ComparedMetric], *, alpha: float, tolerances: Mapping[str, float], seed: int
) -> list[Finding]:
    """Return every metric's verdict on one arm against another."""
    pairs = pairs_of(list(replicates), ours, theirs)
    return [Finding(metric, effect_of(pairs, metric, alpha=alpha, seed=seed), tolerance_of(metric, tolerances)) for metric in metrics]
