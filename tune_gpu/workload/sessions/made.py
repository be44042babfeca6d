"""Make sessions of the columns of their callers: messages, turns, and the history of those under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tune_gpu.workload.sessions.callers import Callers, TurnColumns
from tune_gpu.workload.sessions.distributions import counts, quantile
from tune_gpu.workload.sessions.draws import Purpose
from tune_gpu.workload.sessions.prompts import text_of
from tune_gpu.workload.sessions.system_prompt import SystemPrompts
from tune_gpu.workload.sessions.values import Message, PlannedSession, PlannedTurn, Retrieval, Role, ToolStep
from tune_gpu.workload.sources.values import Exchange

_SHARES_OF_WORDS = (0.4, 0.9)
"""Least and greatest share of the words that a pre-emptive request has."""
LOOK_UP: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look something up for the user.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string", "description": "What to look up."}}, "required": ["query"]},
    },
}
"""The tool of profiles that call tools and define none."""


class MadeSessions:
    """Sessions of one profile.

    Args:
        callers: of the profile.
        numbers: of the sessions.
        at_s: when each begins.
        seconds: length of the window.
    """

    def __init__(self, callers: Callers, numbers: np.ndarray, at_s: np.ndarray, seconds: float) -> None:
        self._callers, self._numbers = callers, numbers
        columns = callers.columns(numbers)
        due_s = at_s[columns.session] + columns.due_s
        ahead = due_s >= 0
        first = np.full(len(numbers), np.iinfo(np.int64).max)
        np.minimum.at(first, columns.session[ahead], np.flatnonzero(ahead))
        taken = np.zeros(len(numbers), dtype=bool)
        known = first < len(due_s)
        taken[known] = due_s[first[known]] < seconds
        self._taken = taken.tolist()
        self._made = _Turns(callers, numbers, columns, taken[columns.session])
        kept = np.flatnonzero(taken)
        ends = np.searchsorted(columns.session, kept, side="right") - np.searchsorted(columns.session, kept)
        self._lengths = ends.tolist()
        self._past = columns.number[first[kept]].tolist()
        self._starts_s = due_s[first[kept]].tolist()
        self._conversations = callers.conversation(numbers[kept]).tolist()
        self._systems = SystemPrompts(callers, numbers[kept])

    def each(self) -> Iterator[PlannedSession | None]:
        """Yield the session of each number, or None if it has no turn in the window."""
        at = position = 0
        for number, taken in zip(self._numbers.tolist(), self._taken, strict=True):
            if not taken:
                yield None
                continue
            yield self._session(number, at, position)
            at, position = at + self._lengths[position], position + 1

    def _session(self, number: int, at: int, position: int) -> PlannedSession:
        callers, past = self._callers, self._past[position]
        conversation = callers.source.conversations[self._conversations[position]]
        system = self._systems.of(position, conversation)
        turns = [self._made.turn(at + of, system.at(of)) for of in range(self._lengths[position])]
        definitions = callers.source.tools or conversation.tools or ((LOOK_UP,) if callers.settings.tool_calls.probability else ())
        return PlannedSession(
            f"w{callers.window}-s{number}" if number >= 0 else f"w{callers.window}-p{-number}",
            callers.profile,
            self._starts_s[position],
            system.before(past),
            definitions,
            tuple(message for turn in turns[:past] for message in history_of(turn)),
            tuple(turns[past:]),
            callers.source.language,
        )


def history_of(turn: PlannedTurn) -> Iterator[Message]:
    """Yield what a turn leaves in the history if it was answered as the plan says."""
    yield Message(Role.USER, turn.says)
    for step in turn.tools:
        yield step.call
        yield step.result
    yield Message(Role.ASSISTANT, turn.recorded)


class _Turns:
    """The turns of the sessions that take part, one after another."""

    def __init__(self, callers: Callers, numbers: np.ndarray, columns: TurnColumns, kept: np.ndarray) -> None:
        self._callers, settings, taking = callers, callers.settings, callers.workload.turn_taking
        self._key, self._number = numbers[columns.session[kept]], columns.number[kept]
        tokens = columns.answer_tokens[kept]
        self._exchange, self._tokens, self._think_s = (column[kept].tolist() for column in (columns.exchange, columns.answer_tokens, columns.think_s))
        self._says = self._draw(Purpose.ANSWER).tolist()
        self._numbers = self._number.tolist()
        self._tool = self._chosen(settings.tool_calls.probability, Purpose.TOOL)
        self._tool_tokens = counts(callers.tool_tokens, self._draw(Purpose.TOOL_TOKENS)).tolist()
        self._tool_name = str((callers.source.tools[0] if callers.source.tools else LOOK_UP)["function"]["name"])
        self._tool_s = np.maximum(0.0, quantile(callers.tool_latency, self._draw(Purpose.TOOL_LATENCY))).tolist()
        self._tool_text = self._draw(Purpose.TOOL_TEXT).tolist()
        self._search = self._chosen(settings.retrieval.probability, Purpose.RETRIEVAL)
        self._chunk = counts(callers.chunk_tokens, self._draw(Purpose.RETRIEVAL_TOKENS)).tolist()
        self._chunk_text = self._draw(Purpose.RETRIEVAL_TEXT).tolist()
        self._barge = self._chosen(taking.barge_in, Purpose.BARGE_IN)
        self._barge_s = (self._draw(Purpose.BARGE_IN_AT) * callers.speech_s(tokens)).tolist()
        self._early = self._chosen(taking.preemptive, Purpose.PREEMPTIVE)
        least, most = _SHARES_OF_WORDS
        self._early_share = (least + (most - least) * self._draw(Purpose.PREEMPTIVE_SHARE)).tolist()

    def _draw(self, purpose: Purpose) -> np.ndarray:
        return self._callers.draw(self._key, self._number, purpose)

    def _chosen(self, share: float, purpose: Purpose) -> list[bool]:
        return list((self._draw(purpose) < share).tolist()) if share else [False] * len(self._number)

    def turn(self, at: int, system: tuple[Message, ...] | None) -> PlannedTurn:
        """Return the turn at a position."""
        callers = self._callers
        exchange = callers.source.exchanges[self._exchange[at]]
        tokens = self._tokens[at]
        return PlannedTurn(
            self._numbers[at],
            exchange.says,
            exchange.clip,
            text_of(tokens, self._says[at]) if exchange.answer is None else exchange.answer,
            None if callers.natural else tokens,
            self._think_s[at],
            self._tools(at, exchange),
            Retrieval(exchange.says, text_of(self._chunk[at], self._chunk_text[at])) if self._search[at] else None,
            self._barge_s[at] if self._barge[at] else None,
            self._early_share[at] if self._early[at] else None,
            system,
        )

    def _tools(self, at: int, exchange: Exchange) -> tuple[ToolStep, ...]:
        if exchange.tools:
            return tuple(ToolStep(call, result, self._tool_s[at]) for call, result in exchange.tools)
        if not self._tool[at]:
            return ()
        identity = f"call_{self._numbers[at]}"
        function = {"name": self._tool_name, "arguments": '{"query": "it"}'}
        call = Message(Role.ASSISTANT, "", ({"id": identity, "type": "function", "function": function},))
        result = Message(Role.TOOL, text_of(self._tool_tokens[at], self._tool_text[at]), tool_call_id=identity)
        return (ToolStep(call, result, self._tool_s[at]),)
