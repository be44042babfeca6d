"""The traffic of sessions in a few numbers: what `tune-gpu plan` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import ProfileSettings, SystemPromptSettings
from tune_gpu.workload.sessions.callers import Callers
from tune_gpu.workload.sessions.plan import plan_sessions
from tune_gpu.workload.sessions.prompts import tokens_of
from tune_gpu.workload.sessions.values import PlannedSession, PlannedTurn
from tune_gpu.workload.sources.loaded import ProfileSource, SessionSources, profiles_of
from tune_gpu.workload.stages import Stage

_SESSIONS = 4096
"""Sessions of which the mean number of turns is taken."""
_WINDOWS = 3


@dataclass(frozen=True)
class ProfileOutline:
    """The callers of one profile. Tokens are approximate: the model's tokenizer is not asked."""

    name: str
    share: float
    """Of the sessions."""
    n_conversations: int
    synthetic: bool
    """No user has said these words."""
    spoken: bool
    single: bool
    """Each conversation of its source is one turn: a request."""
    turns: float
    """Of a session, in the mean."""
    system_tokens: int
    prompt_tokens: tuple[int, int]
    """Of the shortest and the longest prompt in the first windows."""


@dataclass(frozen=True)
class TrafficOutline:
    """The traffic of a space."""

    sessions_per_min: float
    turns_per_window: float
    """Expected, if the services keep up."""
    under_way: float
    """Sessions that are under way when a window begins, in the mean."""
    profiles: tuple[ProfileOutline, ...]
    longest_tokens: int
    """Of a prompt with its answer, in the first windows."""

    @property
    def synthetic(self) -> float:
        """Return the share of the sessions whose words no user has said."""
        return sum(profile.share for profile in self.profiles if profile.synthetic)


def outline_of(workload: WorkloadSettings, stages: Sequence[Stage], sources: SessionSources, *, seed: int) -> TrafficOutline:
    """Return the outline of a traffic, from its settings and its first windows.

    Args:
        workload: the settings of the traffic.
        stages: of a turn.
        sources: what is said.
        seed: of the run.
    """
    windows = [plan_sessions(workload, stages, sources, seed=seed, index=index, seconds=workload.window_s) for index in range(_WINDOWS)]
    sessions = [session for window in windows for session in window.sessions]
    profiles = profiles_of(workload)
    total = sum(profile.share for profile in profiles.values())
    found = [
        _profile(name, profile, profile.share / total, sources.profiles[name], workload, [one for one in sessions if one.profile == name], seed)
        for name, profile in profiles.items()
    ]
    rate = _rate_per_min(workload, sources)
    turns = sum(profile.share * profile.turns for profile in found)
    longest = max((tokens + (turn.answer_tokens or workload.max_tokens) for one in sessions for turn, tokens in _prompts(one, profiles[one.profile])), default=0)
    under_way = sum(bool(session.past) for session in sessions) / _WINDOWS
    return TrafficOutline(rate, rate / 60.0 * workload.window_s * turns, under_way, tuple(found), longest)


def _rate_per_min(workload: WorkloadSettings, sources: SessionSources) -> float:
    times = sources.times
    if workload.arrivals.process != "times" or len(times) < 2 or times[-1] == times[0]:
        return workload.arrivals.sessions_per_min
    return 60.0 * (len(times) - 1) / times[-1]


def _profile(
    name: str, settings: ProfileSettings, share: float, source: ProfileSource, workload: WorkloadSettings, sessions: Sequence[PlannedSession], seed: int
) -> ProfileOutline:
    callers = Callers(name, settings, source, workload, seed, 0)
    prompts = [tokens for session in sessions for _, tokens in _prompts(session, settings)]
    spoken = any(exchange.clip is not None for exchange in source.exchanges)
    return ProfileOutline(
        name, share, len(source.conversations), source.synthetic, spoken, bool(source.lengths.max() == 1), float(callers.n_turns(np.arange(_SESSIONS)).mean()),
        _system_tokens(settings.system_prompt, source), (min(prompts, default=0), max(prompts, default=0)),
    )  # fmt: skip


def _system_tokens(settings: SystemPromptSettings, source: ProfileSource) -> int:
    shared = settings.tokens or (tokens_of(source.system) if source.system else 0)
    tools = sum(tokens_of(str(tool)) for tool in source.tools)
    return shared + settings.per_session_tokens + tools


def _prompts(session: PlannedSession, settings: ProfileSettings) -> Iterator[tuple[PlannedTurn, int]]:
    """Yield each turn of a session with the tokens of its longest prompt."""
    prompt = settings.system_prompt
    system = prompt.tokens + prompt.per_session_tokens if prompt.tokens else sum(tokens_of(message.content) for message in session.system)
    history = system + sum(tokens_of(str(tool)) for tool in session.tools) + sum(tokens_of(message.content or str(message.tool_calls)) for message in session.past)
    for turn in session.turns:
        steps = sum(tokens_of(step.result.content) + tokens_of(str(step.call.tool_calls)) for step in turn.tools)
        says = tokens_of(turn.says)
        yield turn, history + says + steps + (tokens_of(turn.retrieval.context) if turn.retrieval else 0)
        history += says + steps + (turn.answer_tokens or tokens_of(turn.recorded))
