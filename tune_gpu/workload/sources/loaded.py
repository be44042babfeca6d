"""The sources of a traffic of sessions, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import SAMPLES, ProfileSettings
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.sessions.prompts import tokens_of
from tune_gpu.workload.sources.files import arrival_times, prompt_text, tool_definitions
from tune_gpu.workload.sources.found import source_of
from tune_gpu.workload.sources.values import Conversation, Exchange, Source
from tune_gpu.workload.stages import Medium, Stage

DEFAULT_PROFILE = "callers"
_MOST_IN_MEMORY = 1_000_000
"""Turns of one source."""
_USED_BY = {"search": "the search", "comparison": "comparisons"}


@dataclass(frozen=True)
class ProfileSource:
    """What the callers of a profile say, and what stands before it."""

    conversations: Sequence[Conversation]
    system: str | None = None
    """The profile's own system prompt; None for the conversation's."""
    tools: tuple[Mapping[str, Any], ...] = ()
    synthetic: bool = False
    language: str = "en"

    @cached_property
    def exchanges(self) -> Sequence[Exchange]:
        """Return all exchanges, conversation after conversation."""
        return [exchange for conversation in self.conversations for exchange in conversation.exchanges]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the number of exchanges of each conversation."""
        return np.array([len(conversation.exchanges) for conversation in self.conversations])

    @cached_property
    def begins(self) -> np.ndarray:
        """Return the position of each conversation's first exchange."""
        return np.concatenate(([0], np.cumsum(self.lengths)[:-1]))

    @cached_property
    def answer_tokens(self) -> np.ndarray:
        """Return about how many tokens the answer of each exchange has; 0 if it has none."""
        return np.array([exchange.answer_tokens or (tokens_of(exchange.answer) if exchange.answer else 0) for exchange in self.exchanges])

    @cached_property
    def spoken_s(self) -> np.ndarray:
        """Return the length of each exchange's clip in seconds; 0 if it has none."""
        return np.array([0.0 if exchange.clip is None else exchange.clip.duration_s for exchange in self.exchanges])


@dataclass(frozen=True)
class SessionSources:
    """All that a plan of sessions is made from, besides the settings."""

    profiles: Mapping[str, ProfileSource]
    times: Sequence[float] = ()
    """When sessions begin, for `arrivals.process=times`."""
    notes: Sequence[str] = field(default=(), compare=False)
    """What of the sources is not used, one line each."""

    @property
    def clips(self) -> list[Utterance]:
        """Return every clip once."""
        return list({id(clip): clip for clip in self._clips()}.values())

    def _clips(self) -> Iterator[Utterance]:
        for source in self.profiles.values():
            for conversation in source.conversations:
                yield from (exchange.clip for exchange in conversation.exchanges if exchange.clip is not None)

    @cached_property
    def digest(self) -> str:
        """Return a hash of the content, 64 hexadecimal digits."""
        found = hashlib.sha256()
        for name, source in self.profiles.items():
            found.update(_canonical([name, source.system, source.tools]))
            for conversation in source.conversations:
                found.update(content_digest(conversation))
        found.update(_canonical(list(self.times)))
        return found.hexdigest()


def content_digest(conversation: Conversation) -> bytes:
    """Return a hash of what is said in a conversation. Its name and its place in the source do not count."""
    found = hashlib.sha256(_canonical([conversation.system, conversation.tools]))
    for exchange in conversation.exchanges:
        found.update(_canonical([exchange.says, exchange.answer, [[call.as_dict(), result.as_dict()] for call, result in exchange.tools]]))
        if exchange.clip is not None:
            found.update(exchange.clip.samples.tobytes())
    return found.digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def profiles_of(workload: WorkloadSettings) -> Mapping[str, ProfileSettings]:
    """Return the profiles by name: those of the space, or one with the defaults."""
    return workload.profiles or {DEFAULT_PROFILE: ProfileSettings()}


def load_sources(workload: WorkloadSettings, stages: Sequence[Stage], language: str = "en") -> SessionSources:
    """Read the sources of a traffic of sessions.

    Args:
        workload: the settings of the traffic.
        stages: of a turn.
        language: Whisper's code of the language of clips.

    Raises:
        UserError: a source cannot be read, has nothing, or has texts where a turn begins with speech.
    """
    spoken = stages[0].takes is Medium.AUDIO
    found, notes = {}, []
    for name, profile in profiles_of(workload).items():
        key = f"workload.profiles.{name}."
        source = source_of(profile, workload, key, language, spoken=spoken)
        found[name] = _profile_source(profile, source, workload.half, key, language)
        notes += [f"{key}source={profile.source}: {note}" for note in source.notes()]
    file = workload.arrivals.file
    times = arrival_times(file, "workload.arrivals.file") if workload.arrivals.process == "times" and file else ()
    return SessionSources(found, times, tuple(notes))


def check_sources(workload: WorkloadSettings, stages: Sequence[Stage], language: str = "en") -> None:
    """Raise UserError as `load_sources` does, also for a source that has nothing for the comparisons at the end."""
    for half in ("search", "comparison") if workload.half == "search" else (workload.half,):
        load_sources(replace(workload, half=half), stages, language)


def _profile_source(profile: ProfileSettings, source: Source, half: str, key: str, language: str) -> ProfileSource:
    conversations = source.conversations()
    if not conversations:
        raise UserError(f"{key}source={profile.source}: has no conversation. Add some, or set another source.")
    if (turns := sum(len(conversation.exchanges) for conversation in conversations)) > _MOST_IN_MEMORY:
        raise UserError(f"{key}source={profile.source}: has {turns} turns, more than {_MOST_IN_MEMORY}. Keep fewer conversations.")
    if half != "all" and profile.source != SAMPLES:
        conversations = [conversation for conversation in conversations if half_of(conversation) == half]
        if not conversations:
            raise UserError(
                f"{key}source={profile.source}: none of its conversations is in the half for {_USED_BY[half]}. Add more of them, or set workload.half=all."
            )
    prompt = profile.system_prompt
    text = prompt.text if prompt.file is None else prompt_text(prompt.file, f"{key}system_prompt.file")
    tools = () if prompt.tools is None else tool_definitions(prompt.tools, f"{key}system_prompt.tools")
    return ProfileSource(conversations, text, tools, source.synthetic, language)


def half_of(conversation: Conversation) -> str:
    """Return the half that a conversation belongs to. It depends on what is said in it alone, so that lines added to a file move none."""
    said = [[exchange.says, exchange.answer] for exchange in conversation.exchanges]
    return "search" if hashlib.sha256(_canonical(said)).digest()[0] % 2 else "comparison"
