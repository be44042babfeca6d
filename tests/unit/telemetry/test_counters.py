"""The sampler reads counters at both ends of a stretch, and the other readings once a second."""

from __future__ import annotations

import itertools

from tests.unit.telemetry.test_unknown_readings import FULL, Tape
from tune_gpu.telemetry.sampler import DeviceSampler


def test_counters_are_differences_and_no_part_of_the_moments() -> None:
    card, rising = Tape([FULL]), itertools.count(10)

    def read() -> dict[str, float]:
        return {"running": 2.0, "hits_total": float(next(rising))}

    with DeviceSampler(card, {}, gauges={"llm": read, "mute": dict}) as sampler:
        assert card.ended.wait(10)
    found = sampler.window()
    assert found.counted["llm"].keys() == {"hits_total"}
    assert found.counted["llm"]["hits_total"] >= 1.0, "it was read first at the start and last at the end"
    assert found.counted["mute"] == {}
    assert all(moment.gauges in ({}, {"llm": {"running": 2.0}}) for moment in found.moments)


def test_a_service_that_ended_meanwhile_has_no_difference() -> None:
    answers = iter([{"hits_total": 3.0}])
    with DeviceSampler(Tape([FULL]), {}, gauges={"llm": lambda: next(answers, {})}) as sampler:
        pass
    assert sampler.window().counted == {"llm": {}}
