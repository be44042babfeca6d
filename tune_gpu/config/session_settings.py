"""Settings of sessions (`traffic.kind: sessions`): who calls, how often, what they say, and how they take turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.config.bounds import Bounds
from tune_gpu.config.distributions import Drawn
from tune_gpu.config.rules import OneOf, bounded, one_of, rule, ruled

MOST_TURNS = 1000
MOST_TOKENS = 1_000_000
MOST_SECONDS = 86_400.0
NATURAL = "natural"
SAMPLES, DEMONSTRATION = BUILT_IN = ("samples", "demonstration")
"""Sources that are no file."""
FORMATS = ("messages", "sharegpt", "prompts", "clips")
_POISSON = 1.0
"""Shape at which gamma gaps are exponential."""
_TOKENS = Bounds(least=1, most=MOST_TOKENS)


@dataclass
class ArrivalSettings:
    """When sessions begin. They do not wait for one another (open loop)."""

    process: str = one_of("poisson", "poisson", "gamma", "times")
    """`poisson`; `gamma`, for bursts; or `times`, those of a file."""
    sessions_per_min: float = bounded(6.0, above=0, most=600_000)
    burstiness: float = bounded(1.0, least=0.01, most=1000)
    """Shape of the gamma distribution of the gaps, as `--burstiness` of vLLM's benchmark: below 1 bursts, 1 is Poisson, above 1 more regular."""
    file: str | None = None
    """A file with one time per line, in seconds and in order. Windows take stretches of it in turn, and it is repeated at its end."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        if self.process == "times" and not self.file:
            yield f"{at}process=times: no {at}file. Set it to a file with one time per line, in seconds."
        if self.process != "times" and self.file:
            yield f"{at}file={self.file}: not used by {at}process={self.process}. Set {at}process=times, or remove the file."
        if self.process != "gamma" and self.burstiness != _POISSON:
            yield f"{at}burstiness={self.burstiness:g}: not used by {at}process={self.process}. Set {at}process=gamma, or leave it at 1."


@dataclass
class SystemPromptSettings:
    """What stands before the history in every request. Give one of `text`, `file` and `tokens`, or none for no prompt (or the source's own)."""

    text: str | None = None
    file: str | None = None
    tokens: int | None = bounded(None, least=1, most=MOST_TOKENS)
    """About as many tokens of English words."""
    shared_by: str | None = ruled(None, OneOf(("all", "profile", "session")))
    """Who has the same words, with `tokens`: all callers, those of this profile (the default), or each session its own."""
    per_session_tokens: int = bounded(0, least=0, most=MOST_TOKENS)
    """Tokens behind it that are the caller's own: an account, what was found for them."""
    tools: str | None = None
    """A JSON file with a list of definitions of tools, in the form of OpenAI's API."""
    volatile: str = one_of("none", "none", "head", "tail")
    """Where a clock stands that is different in every turn: `head` leaves nothing for a prefix cache."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        given = [name for name in ("text", "file", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            yield f"{at}{given[0]}: {at}{given[1]} is given as well. Keep one of them."
        if self.shared_by is not None and self.tokens is None:
            yield f"{at}shared_by={self.shared_by}: applies to {at}tokens, which is not given. Set it, or remove shared_by."


@dataclass
class ToolCallSettings:
    """Calls of a tool within a turn. A conversation of a source keeps its own calls."""

    probability: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the turns with a call."""
    result_tokens: Any = field(default=80, metadata=rule(Drawn(_TOKENS)))
    latency_s: Any = field(default=0.15, metadata=rule(Drawn(Bounds(least=0, most=MOST_SECONDS))))


@dataclass
class RetrievalSettings:
    """A search for context before the LLM is asked."""

    probability: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the turns with a search."""
    chunk_tokens: Any = field(default=600, metadata=rule(Drawn(_TOKENS)))
    """Length of what is found."""


@dataclass
class ProfileSettings:
    """Callers of one kind."""

    share: float = bounded(1.0, above=0, most=1e6)
    """Of all sessions, in proportion to the other profiles' shares."""
    source: str = "samples"
    """`demonstration` (conversations of people from a package, spoken by synthesised voices if a turn begins with speech), `samples` (single
    built-in requests, or the clips of `audio`), a file of conversations or prompts, or a folder of clips (`SESSION/NN.wav` beside
    `SESSION/NN.txt`). Each spoken session of a folder has one of the ratios of `audio.noise_snr_db`."""
    format: str | None = ruled(None, OneOf(FORMATS))
    """Of the source: `messages` (JSON lines of OpenAI's messages), `sharegpt` (JSON), `prompts` (one per line) or `clips`. null: by its content."""
    system_prompt: SystemPromptSettings = field(default_factory=SystemPromptSettings)
    turns: Any = field(default=None, metadata=rule(Drawn(Bounds(least=1, most=MOST_TURNS))))
    """Turns of a session. null: as many as the source's conversation has; for single requests, lognormal with a median of 3 and a p95 of 8."""
    answer_tokens: Any = field(default=None, metadata=rule(Drawn(_TOKENS, (NATURAL,))))
    """Length of an answer, whose end-of-text token is ignored. `natural`: the model ends it, at most `max_tokens` long. null: about as long as
    the source's answer; without one, lognormal with a median of 40 and a p95 of 120."""
    think_s: Any = field(default=None, metadata=rule(Drawn(Bounds(least=0, most=MOST_SECONDS))))
    """Pause of the caller between the end of an answer and the next words. null: lognormal with a median of 2 and a p95 of 8."""
    tool_calls: ToolCallSettings = field(default_factory=ToolCallSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)


@dataclass
class TurnTakingSettings:
    """How callers and the assistant take turns."""

    endpoint_ms: float = bounded(0.0, least=0, most=60_000)
    """Pause between the end of speech and the first request of a turn, in which an end-point is detected. No latency includes it."""
    barge_in: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the turns whose answer the caller interrupts. Its requests are cancelled, which is no failure."""
    preemptive: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the turns in which the LLM is first asked with a part of the words. That request is cancelled."""


@dataclass
class AuxiliarySettings:
    """Requests to an LLM beside the turns. Give one of `per_session`, `per_turn` and `per_min`."""

    service: str | None = None
    """null for the LLM of a turn."""
    per_session: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the sessions with such a request after their first turn, over the session's history (a title)."""
    per_turn: float = bounded(0.0, least=0.0, most=1.0)
    """Share of the turns with such a request behind them, over the session's history (follow-up questions)."""
    per_min: float = bounded(0.0, least=0, most=600_000)
    """Rate of such requests without a history (Poisson)."""
    prompt: str | None = None
    """What is asked. null: built-in words."""
    prompt_tokens: Any = field(default=None, metadata=rule(Drawn(_TOKENS)))
    """Length of the prompt of a request without a history, in place of `prompt`."""
    answer_tokens: Any = field(default=16, metadata=rule(Drawn(_TOKENS)))

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        given = [name for name in ("per_session", "per_turn", "per_min") if getattr(self, name) > 0]
        if len(given) != 1:
            state = f"{at}{given[0]} and {at}{given[1]} are given" if given else "no rate is given"
            yield f"{at.rstrip('.')}: {state}. Set one of per_session, per_turn and per_min."
        if self.prompt_tokens is not None and (self.prompt is not None or not self.per_min):
            yield f"{at}prompt_tokens: applies to requests without a history (per_min) and without {at}prompt. Remove it."
