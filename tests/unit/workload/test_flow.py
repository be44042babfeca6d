"""What became of the turns of a plan is counted: offered, answered, cut, cancelled."""

from __future__ import annotations

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import ObjectiveSettings
from tune_gpu.metrics import catalogue_of
from tune_gpu.workload.capacity import targets_of
from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.summary import summarise
from tune_gpu.workload.turn import FurtherRequest, Purpose, Turn
from tune_gpu.workload.window import WindowResult

CHAT = catalogue_of({"llm": Protocol.CHAT})


def answer(due: float, *, prompt: int | None = 600, tokens: int = 24, error: str | None = None, cancelled: bool = False) -> GenerationSample:
    return GenerationSample(due, [due + 0.2, due + 0.4], tokens, error, prompt_tokens=prompt, cancelled=cancelled)


def turn(due: float, *, further: tuple[FurtherRequest, ...] = (), error: str | None = None, heard: bool = True, stalls: tuple[float, ...] = ()) -> Turn:
    made = Turn(due, "s/0", "yes", {"llm": answer(due, error=error)}, stages=("llm",), further=list(further))
    made.heard_from, made.stalls_s = (due + 0.3 if heard else None), stalls
    return made


AHEAD = FurtherRequest("llm", Purpose.PREEMPTIVE, answer(0.9, prompt=590, tokens=3, cancelled=True))
WINDOW = WindowResult(
    "mixed", 10.0, [turn(1.0, further=(AHEAD,), stalls=(0.05, 0.1)), turn(2.0), turn(3.0, error="timeout")], planned=6, censored=[turn(9.0, further=(AHEAD,), heard=False)],
)  # fmt: skip


def test_the_turns_of_sessions_are_counted_by_what_became_of_them() -> None:
    found = summarise([WINDOW, WINDOW], CHAT).as_metrics()
    assert {name: found[name] for name in ("offered_turns", "achieved_turns", "censored_turns", "cancelled_requests", "wasted_tokens")} == {
        "offered_turns": 8, "achieved_turns": 4, "censored_turns": 2, "cancelled_requests": 4, "wasted_tokens": 12,
    }  # fmt: skip


def test_turns_of_an_open_loop_have_no_caller_who_cancels() -> None:
    found = summarise([WindowResult("mixed", 10.0, [turn(1.0), turn(3.0, error="timeout")])], CHAT).as_metrics()
    assert (found["offered_turns"], found["achieved_turns"], found["censored_turns"], found["cancelled_requests"]) == (2, 1, None, None)


def test_voice_to_voice_ends_where_the_answer_is_heard() -> None:
    found = summarise([WINDOW], CHAT).as_metrics()
    assert (round(found["voice_to_voice_ms"]["p50"]), found["voice_to_voice_ms"]["n"]) == (300, 2)
    assert (round(found["stall_ms"]["mean"]), found["stall_ms"]["n"]) == (75, 2)


def test_prompts_are_measured_by_the_count_of_the_server() -> None:
    found = summarise([WINDOW], CHAT).as_metrics()
    assert (found["llm.prompt_tokens"]["p95"], found["llm.longest_context_tokens"]) == (600.0, 624)
    uncounted = WindowResult("mixed", 10.0, [Turn(1.0, "s/0", "yes", {"llm": answer(1.0, prompt=None)})])
    assert summarise([uncounted], CHAT).as_metrics()["llm.longest_context_tokens"] is None


def test_a_target_of_sessions_counts_only_where_they_were_heard() -> None:
    aims = ObjectiveSettings()
    assert "voice_to_voice_ms" in [metric.name for metric, _ in targets_of([turn(1.0)], aims, CHAT)]
    assert "voice_to_voice_ms" not in [metric.name for metric, _ in targets_of([turn(1.0, heard=False)], aims, CHAT)]
