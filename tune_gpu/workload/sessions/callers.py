"""The callers of one profile: all that is drawn for their sessions and turns, as columns."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.config.distributions import Distribution, distribution_of
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import MOST_TURNS, NATURAL, ProfileSettings
from tune_gpu.workload.sessions.distributions import counts, quantile
from tune_gpu.workload.sessions.draws import Purpose, uniform
from tune_gpu.workload.sessions.prompts import words_of
from tune_gpu.workload.sources.loaded import ProfileSource

_TURNS = Distribution("lognormal", median=3.0, p95=8.0)
_ANSWERS = Distribution("lognormal", median=40.0, p95=120.0)
_THINK = Distribution("lognormal", median=2.0, p95=8.0)
ANSWER_AFTER_S = 1.0
"""What an answer is taken to need until it is heard. The plan uses it only to tell how far the sessions of the past have come."""
_USUAL_WPM = 150.0


@dataclass(frozen=True)
class TurnColumns:
    """Draws of many turns, session after session."""

    session: np.ndarray
    """Position of each turn's session among the sessions asked for."""
    number: np.ndarray
    """Of the turn in its session, from 0."""
    exchange: np.ndarray
    """Position of what is said among the source's exchanges."""
    answer_tokens: np.ndarray
    think_s: np.ndarray
    due_s: np.ndarray
    """When the turn would be due, after the session's beginning, if each answer needed `ANSWER_AFTER_S`."""
    listen_s: np.ndarray


class Callers:
    """The callers of one profile.

    Args:
        name: of the profile.
        settings: of the profile.
        source: what they say.
        workload: how they take turns.
        seed: of the run.
        window: its number.
    """

    def __init__(self, name: str, settings: ProfileSettings, source: ProfileSource, workload: WorkloadSettings, seed: int, window: int) -> None:
        self.profile, self.settings, self.source, self.workload, self.seed, self.window = name, settings, source, workload, seed, window
        self.turns = None if settings.turns is None else distribution_of(settings.turns)
        self.natural = settings.answer_tokens == NATURAL
        self.answers = None if settings.answer_tokens is None or self.natural else distribution_of(settings.answer_tokens)
        self.think = _THINK if settings.think_s is None else distribution_of(settings.think_s)
        self.tool_tokens, self.tool_latency = distribution_of(settings.tool_calls.result_tokens), distribution_of(settings.tool_calls.latency_s)
        self.chunk_tokens = distribution_of(settings.retrieval.chunk_tokens)

    @cached_property
    def _order(self) -> np.ndarray:
        """Return the source's conversations in an order of the seed, so that the sessions of a window differ in theirs as long as they can."""
        name = zlib.crc32(self.profile.encode())
        return np.argsort(uniform(self.seed, 0, np.arange(len(self.source.lengths)), name, Purpose.ORDER))

    def draw(self, session: Any, turn: Any, purpose: int) -> np.ndarray:
        """Return a number in (0, 1) for each session and turn."""
        return uniform(self.seed, self.window, session, turn, purpose)

    def conversation(self, sessions: np.ndarray) -> np.ndarray:
        """Return the position of each session's conversation in the source."""
        n = len(self.source.lengths)
        begins = int(self.draw(0, 0, Purpose.CONVERSATION)[0] * n)
        return self._order[(begins + sessions) % n]

    def n_turns(self, sessions: np.ndarray) -> np.ndarray:
        """Return the number of turns of each session."""
        wanted = self.turns
        if wanted is None and int(self.source.lengths.max()) > 1:
            return np.minimum(self.source.lengths[self.conversation(sessions)], MOST_TURNS)
        return counts(wanted or _TURNS, self.draw(sessions, 0, Purpose.TURNS), most=MOST_TURNS)

    def columns(self, sessions: np.ndarray) -> TurnColumns:
        """Return the turns of these sessions."""
        n_turns = self.n_turns(sessions)
        first = np.concatenate(([0], np.cumsum(n_turns)[:-1]))
        session = np.repeat(np.arange(len(sessions)), n_turns)
        number = np.arange(int(n_turns.sum())) - first[session]
        key = sessions[session]
        exchange = self._exchange(sessions, session, number)
        tokens = self._answer_tokens(key, number, exchange)
        think_s = np.maximum(0.0, quantile(self.think, self.draw(key, number, Purpose.THINK)))
        think_s[first] = 0.0
        listen_s = self._listen_s(tokens)
        answered_s = self.workload.turn_taking.endpoint_ms / 1e3 + ANSWER_AFTER_S + listen_s
        since = np.cumsum(think_s + self.source.spoken_s[exchange] + np.concatenate(([0.0], answered_s[:-1])))
        return TurnColumns(session, number, exchange, tokens, think_s, since - since[first][session], listen_s)

    def _exchange(self, sessions: np.ndarray, session: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Return what is said in each turn: the session's conversation, and after its end others in the order of the source."""
        own = self.conversation(sessions)
        after = self.source.begins[(self.draw(sessions, 0, Purpose.WORDS) * len(self.source.lengths)).astype(np.int64)]
        beyond = number - self.source.lengths[own][session]
        return np.where(beyond < 0, self.source.begins[own][session] + number, (after[session] + beyond) % len(self.source.exchanges))

    def _answer_tokens(self, key: np.ndarray, number: np.ndarray, exchange: np.ndarray) -> np.ndarray:
        if self.answers is not None:
            return counts(self.answers, self.draw(key, number, Purpose.ANSWER_TOKENS))
        answered = self.source.answer_tokens[exchange]
        if answered.all():
            return answered
        return np.where(answered > 0, answered, counts(_ANSWERS, self.draw(key, number, Purpose.ANSWER_TOKENS)))

    def _listen_s(self, tokens: np.ndarray) -> np.ndarray:
        """Return how long each answer would be heard."""
        if self.workload.listen_wpm == 0:
            return np.zeros(len(tokens))
        return words_of_many(tokens) * 60.0 / self.workload.listen_wpm

    def speech_s(self, tokens: np.ndarray) -> np.ndarray:
        """Return how long each answer is in speech, also where callers do not listen."""
        return words_of_many(tokens) * 60.0 / (self.workload.listen_wpm or _USUAL_WPM)


def words_of_many(tokens: np.ndarray) -> np.ndarray:
    """Return about how many words answers of so many tokens have."""
    return np.asarray(tokens * (words_of(1000) / 1000.0))
