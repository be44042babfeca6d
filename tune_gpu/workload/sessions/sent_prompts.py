"""The prompts that an LLM got in a window of sessions, in the order of sending: texts from the plan, tokens by the server's own count."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_gpu.workload.clients.generation import GenerationSample
from tune_gpu.workload.sessions.exchange import words_so_far
from tune_gpu.workload.sessions.filling import filling_of
from tune_gpu.workload.sessions.history import History
from tune_gpu.workload.sessions.ideal import Prompt
from tune_gpu.workload.sessions.values import AuxiliaryRequest, Message, PlannedSession, SessionWindow
from tune_gpu.workload.turn import Purpose, Turn
from tune_gpu.workload.window import WindowResult

_Sent = tuple[float, Prompt]
"""When a prompt was due (monotonic clock, seconds), and the prompt."""


def prompts_of(plan: SessionWindow, result: WindowResult, label: str, *, own_history: bool) -> list[Prompt]:
    """Return the prompts of the LLM with this label: those that filled its cache, and those of the turns that were sent.

    Requests beside the turns are counted by no server's answer that is kept, so their tokens are unknown. Where an LLM heard a transcript, the
    reference stands for it.
    """
    turns = {(turn.place.session, turn.place.number): turn for turn in (*result.turns, *result.censored) if turn.place}
    after: dict[tuple[str | None, int | None], list[AuxiliaryRequest]] = {}
    for request in plan.auxiliary:
        if request.service == label:
            after.setdefault((request.session, request.after_turn), []).append(request)
    sent = [found for session in plan.sessions for found in _of_session(session, turns, after, label, own_history=own_history)]
    for request in after.get((None, None), ()):
        if request.at_s is not None and request.at_s < result.offered_s:
            sent.append((result.started + request.at_s, Prompt(rendered(request.messages), answer_tokens=request.answer_tokens)))
    filled = [Prompt(rendered(chat.messages, chat.tools), scored=False) for chat in filling_of(plan)]
    return filled + [prompt for _, prompt in sorted(sent, key=lambda found: found[0])]


def _of_session(
    session: PlannedSession,
    turns: Mapping[tuple[str, int], Turn],
    after: Mapping[tuple[str | None, int | None], Sequence[AuxiliaryRequest]],
    label: str,
    *,
    own_history: bool,
) -> Iterator[_Sent]:
    history = History(session, own=own_history)
    for planned in session.turns:
        turn = turns.get((session.name, planned.number))
        if turn is None:
            return
        answer = turn.samples.get(label)
        messages = history.prompt(planned, planned.says)
        ahead, called = (_further(turn, label, purpose) for purpose in (Purpose.PREEMPTIVE, Purpose.TOOL))
        for sample in ahead:
            yield _prompt(history.prompt(planned, words_so_far(planned.says, planned.preemptive or 1.0)), session, sample)
        for sample, step in zip(called, planned.tools, strict=False):
            yield _prompt(messages, session, sample)
            messages = [*messages, step.call, step.result]
        if isinstance(answer, GenerationSample) and answer.error is None:
            yield _prompt(messages, session, answer, kept=own_history)
            history.add(planned, planned.says, answer.text)
            for request in after.get((session.name, planned.number), ()):
                asked = rendered(history.beside(request.messages), session.tools)
                yield answer.done or answer.due, Prompt(asked, answer_tokens=request.answer_tokens)
        else:
            history.add(planned, planned.says, None)


def _further(turn: Turn, label: str, purpose: Purpose) -> list[GenerationSample]:
    found = [other.sample for other in turn.further if other.label == label and other.purpose is purpose]
    return [sample for sample in found if isinstance(sample, GenerationSample) and sample.error is None]


def _prompt(messages: Sequence[Message], session: PlannedSession, sample: GenerationSample, *, kept: bool = False) -> _Sent:
    text = rendered(messages, session.tools)
    return sample.due, Prompt(text, sample.prompt_tokens, f"{_head('assistant')}{sample.text}" if kept else "", sample.n_tokens)


def rendered(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a conversation as one text, so that two of them begin alike as far as their messages do. The template (ChatML's) stands for the
    model's own, which the server applies."""
    head = json.dumps([dict(tool) for tool in tools]) if tools else ""
    return head + "".join(f"{_head(message.role)}{message.content}{_calls(message)}<|im_end|>\n" for message in messages)


def _head(role: str) -> str:
    return f"<|im_start|>{role}\n"


def _calls(message: Message) -> str:
    return json.dumps([dict(call) for call in message.tool_calls]) if message.tool_calls else ""
