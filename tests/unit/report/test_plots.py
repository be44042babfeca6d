"""The figures of a long run: no more in them than a browser draws in seconds, and a person can read."""

from __future__ import annotations

import time

from tests.support import made_run
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.report import plots
from tune_gpu.report.plots import (
    MOST_MOMENTS,
    MOST_ROWS,
    MOST_TICKS,
    costs_by_candidate,
    device_during_run,
    fitness_by_generation,
    latency_distributions,
)


def long_run(n: int, seconds: int = 20) -> list[EvaluationRecord]:
    made = []
    for number in range(n):
        line = made_run.line(f"g{number // 4}-c{number % 4}", made_run.SLOW | {"vllm_memory_util": number}, 0.5 - number * 1e-6, generation=number // 4)
        at = [1_800_000_000.0 + number * 30 + second for second in range(seconds)]
        line.metrics["device_trace"] = {"at": at, "used_mib": [float(second % 7) for second in range(seconds)], "utilization_pct": [None] * seconds}
        made.append(line)
    return made


def test_of_a_long_run_no_figure_holds_more_than_can_be_drawn() -> None:
    lines = long_run(3000)
    last = lines[-1].params
    began = time.process_time()
    device, latency = device_during_run(lines), latency_distributions(lines, winner=lines[7].params, baseline=last)
    costs, fitness = costs_by_candidate(lines), fitness_by_generation(lines)
    assert time.process_time() - began < 20.0, "in time that grows with the run, not with its square"
    (memory,) = device.data
    assert len(memory.x) <= MOST_MOMENTS + 2
    assert max(value for value in memory.y if value is not None) == 6.0, "a peak stays"
    names = list(latency.data[0].y)
    assert len(names) == MOST_ROWS
    assert {"g1-c3 <b>winner</b>", "g749-c3 <b>baseline</b>"} <= set(names), "also the baseline, which is the least fit"
    assert [len(bar.y) for bar in costs.data] == [MOST_ROWS] * len(costs.data)
    assert len(fitness.layout.xaxis.tickvals) <= MOST_TICKS


def test_of_a_short_run_everything_is_drawn() -> None:
    lines = long_run(12, seconds=5)
    (memory,) = device_during_run(lines).data
    assert sum(value is not None for value in memory.y) == 12 * 5
    assert plots.moments_a_point(lines) == 1
    assert len(latency_distributions(lines).data[0].y) == len(costs_by_candidate(lines).data[0].y) == 12
    assert list(fitness_by_generation(lines).layout.xaxis.tickvals) == [0, 1, 2]


def test_the_front_can_be_of_the_fitness_and_another_number() -> None:
    lines = long_run(3)
    made = plots.pareto_front(lines, {"fitness": "max", "voice_turn_ms.p95": "min"})
    assert sorted(x for drawn in made.data if drawn.mode == "markers" for x in drawn.x) == sorted(line.known_fitness for line in lines)
