"""What is sent when: pure functions of a seed. Every candidate gets the same plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tune_gpu.config.measure_settings import LONGEST_PAUSE
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.arrivals import poisson_arrivals
from tune_gpu.workload.clients.call import Content
from tune_gpu.workload.inputs import Inputs, Item
from tune_gpu.workload.stages import Stage
from tune_gpu.workload.traffic import Traffic

_ORDER = 2_000_000  # these numbers name random streams: of the inputs' order,
_RAMP = 1_000_000  # of the callers of a ramp,
_BESIDE = 3_000_000  # and of the background requests beside them
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Ask:
    """One background request."""

    at_s: float
    """After the start."""
    stage: Stage
    content: Content


@dataclass(frozen=True)
class WindowPlan:
    """The requests of a window."""

    turns: Sequence[tuple[float, Item]]
    """When each turn is due, in seconds after the start, and its input."""
    asks: Sequence[Ask]


@dataclass(frozen=True)
class StepPlan:
    """The requests of one step of a ramp."""

    callers: Sequence[Iterator[tuple[float, Item]]]
    """For each caller without end: the pause before a turn in seconds, and its input."""
    asks: Sequence[Ask]


def plan_window(
    traffic: Traffic, workload: WorkloadSettings, inputs: Inputs, *, seed: int, index: int, seconds: float, only: str | None = None
) -> WindowPlan:
    """Return the plan of a window.

    Args:
        traffic: the services, which are not asked.
        workload: rates and lengths.
        inputs: of turns and background requests.
        seed: of the run.
        index: number of the window.
        seconds: how long requests arrive.
        only: the one service that is driven.
    """
    rng = np.random.default_rng([seed, index])
    items = inputs.of(traffic.stages, traffic.chain(only)[0])
    # One order for all windows: each starts about where the previous one ended, so that together they cover as many inputs as possible.
    so_far = round(index * seconds * workload.turn_rate_per_s) % len(items)
    ordered = itertools.islice(endless_order(items, np.random.default_rng([seed, _ORDER])), so_far, None)
    due = poisson_arrivals(workload.turn_rate_per_s, seconds, rng)
    while not due:  # a window without a turn measures nothing: the process is conditioned on at least one
        due = poisson_arrivals(workload.turn_rate_per_s, seconds, rng)
    beside = [stage for stage in traffic.background if only in (None, stage.service)]
    return WindowPlan(list(zip(due, ordered, strict=False)), plan_background(beside, workload, inputs, seconds, rng))


def plan_step(traffic: Traffic, workload: WorkloadSettings, inputs: Inputs, *, seed: int, sessions: int, attempt: int) -> StepPlan:
    """Return the plan of one step of a ramp, which so many callers take part in."""
    rng = np.random.default_rng([seed, _RAMP, sessions, attempt])
    items = inputs.of(traffic.stages, traffic.stages[0])
    callers = [_turns(items, workload.session_pause_s, np.random.default_rng(rng.integers(2**63))) for _ in range(sessions)]
    beside = np.random.default_rng([seed, _BESIDE, sessions, attempt])
    return StepPlan(callers, plan_background(traffic.background, workload, inputs, workload.capacity_step_s, beside))


def _turns(items: Sequence[Item], pause_s: float, rng: np.random.Generator) -> Iterator[tuple[float, Item]]:
    for item in endless_order(items, rng):
        yield float(rng.uniform(0.5, LONGEST_PAUSE)) * pause_s, item


def plan_background(
    stages: Sequence[Stage], workload: WorkloadSettings, inputs: Inputs, seconds: float, rng: np.random.Generator
) -> list[Ask]:
    """Return the background requests of these services."""
    asks: list[Ask] = []
    for stage in stages:
        due = poisson_arrivals(workload.background.get(stage.service, workload.background_rate_per_s), seconds, rng)
        if stage.generates:
            asks += [Ask(at_s, stage, background_prompt(workload.background_prompt_tokens, rng)) for at_s in due]
        elif due:
            ordered = endless_order(inputs.beside(stage), rng)
            asks += [Ask(at_s, stage, item.content(stage.takes)) for at_s, item in zip(due, ordered, strict=False)]
    return asks


def endless_order(items: Sequence[ItemT], rng: np.random.Generator) -> Iterator[ItemT]:
    """Yield every item once in a random order, again and again. Callers differ in the order, not in the items."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def background_prompt(n_tokens: int, rng: np.random.Generator) -> str:
    """Return random words of about this many tokens, which no prefix cache can hold."""
    letters = rng.integers(97, 123, size=max(1, n_tokens))
    return " ".join("".join(map(chr, letters[i : i + 4])) for i in range(0, len(letters), 5))
