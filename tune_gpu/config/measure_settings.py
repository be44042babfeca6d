"""Settings of a measurement: its traffic, when it counts, and how differences are shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tune_gpu import metrics
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.languages import check_language
from tune_gpu.config.rules import By, Entries, Items, bounded, one_of, rule, ruled

LONGEST_PAUSE = 1.5
"""A caller's longest pause in the ramp, in `session_pause_s`."""


@dataclass
class AudioSettings:
    """The utterances that are spoken to the assistant."""

    source: str = "samples"
    """`samples` (English clips of the package pytest-audioeval) or a folder of `NAME.wav` beside `NAME.txt`."""
    noise_snr_db: list[float | None] = field(
        default_factory=lambda: [None], metadata=rule(Items(Bounds(least=-100, most=100), null="the clean clip"))
    )
    """Each clip is also spoken in white noise at these signal-to-noise ratios; null is the clean clip."""
    language: str | None = ruled(None, By(check_language))
    """Whisper's code of the language that is spoken in them, by whose rules errors are counted; null: English for `samples`, else `services.whisper.language`."""
    max_utterance_s: float = bounded(30.0, above=0)

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message."""
        if self.source == "samples" and self.language not in (None, "en"):
            yield f"{at}language={self.language}: the clips of {at}source=samples are English. Give a folder of your own."


@dataclass
class TextSettings:
    """The texts that turns begin with where their first service takes text."""

    source: str = "samples"
    """`samples` (plain requests of users, built in) or a file with one text a line."""


@dataclass
class WorkloadSettings:
    """The traffic of one evaluation. In a space it may stand under `traffic`, too."""

    kind: str = one_of("requests", "requests")
    audio: AudioSettings = field(default_factory=AudioSettings)
    texts: TextSettings = field(default_factory=TextSettings)
    turn: list[str] | None = None
    """The services that a turn passes, in order. Null: the default pair's, speech to text and then the LLM, or the one service that has an API."""
    voice: str | None = None
    """The voice that a service of speech is asked for; null leaves it to the service."""
    turn_rate_per_s: float = bounded(0.5, above=0)
    """Mean arrival rate of turns (Poisson, open loop)."""
    background: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="service")))
    """Service -> mean arrival rate of requests to it that come from elsewhere (Poisson, open loop)."""
    background_rate_per_s: float = bounded(0.0, least=0)
    """The same, for the LLM of the turns."""
    background_prompt_tokens: int = bounded(128, least=1)
    max_tokens: int = bounded(32, above=0)
    """Length of each answer (the end-of-text token is ignored, so that every answer has the same length)."""
    warmup_turns: int = bounded(2, least=0)
    window_s: float = bounded(10.0, above=0)
    windows: int = bounded(1, above=0)
    solo_window_s: float = bounded(0.0, least=0)
    """Above 0: each service is also measured alone, for the interference ratio."""
    request_timeout_s: float = bounded(30.0, above=0)
    max_inflight_turns: int = bounded(64, above=0)
    capacity_max_sessions: int = bounded(8, above=0)
    """The ramp of `concurrent_capacity` ends here."""
    capacity_step_s: float = bounded(3.0, least=0)
    """How long each step of the ramp is held; 0 leaves capacity out."""
    session_pause_s: float = bounded(0.5, least=0)
    """A caller's mean pause between an answer and the next utterance, in the ramp."""
    capacity_hopeless_load: float = bounded(1.5, above=0)
    """A step this far above its targets is not held a second time."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message."""
        longest_pause_s = LONGEST_PAUSE * self.session_pause_s
        if 0 < self.capacity_step_s <= longest_pause_s:  # nobody would speak in a step, and a capacity of 0 would stand for "not measured"
            yield (
                f"{at}capacity_step_s={self.capacity_step_s:g}: shorter than a caller's longest pause ({at}session_pause_s={self.session_pause_s:g}). "
                f"Set 0 (no ramp) or a number above {longest_pause_s:g}."
            )


@dataclass
class TelemetrySettings:
    """When a window of load counts. What was disturbed is measured again; see `telemetry/verdicts.py`."""

    max_invalid_windows: int = bounded(2, least=0)
    """So many windows of one evaluation may be measured again; one more, and it is `measurement_invalid`."""
    max_throttled_share: float = bounded(0.1, above=0, most=1)
    """Of the readings in which heat or power may hold the clocks down."""
    power_cap_invalidates: bool = True
    """`false` for a card that always runs at its power cap: only heat and falling clocks then disturb a window."""
    max_clock_fall_share: float = bounded(0.15, above=0, most=1)
    """How far the clock under load may fall within a window, and below that of the windows before."""


@dataclass
class ConfirmSettings:
    """How differences are shown: `tune-gpu compare`, and the end of every run. Arms are deployed in turn, round after round, under the same
    traffic; `tune_gpu/compare/` has the statistics."""

    enabled: bool = True
    """Confirm the search's best before the run names its winner."""
    metric: str = metrics.FITNESS.name
    """What the winner must be better in than the baseline to be `confirmed`."""
    candidates: int = bounded(2, least=1)
    """How many of the search's best compete for it, the best of all counted."""
    confidence: float = bounded(0.95, least=0.5, below=1)
    """Per metric; the looks at a growing comparison share what is left to 1."""
    min_rounds: int = bounded(3, least=3)
    """Rounds before the first look. Fewer have no interval: two deployments of an arm hardly show how much one differs from the next."""
    max_rounds: int = bounded(12, most=500)
    budget_s: float = bounded(1800.0, least=0)
    """A run's confirmation ends here, with a verdict or without (a command's `--budget-s` is its own). It does not begin if the run's own
    times say that `min_rounds` do not fit."""
    windows: int | None = bounded(None, least=1)
    """Of one deployment; null: `workload.windows`, or one if more do not fit into the budget."""
    window_s: float | None = bounded(None, above=0)
    capacity: bool = True
    """Also find the capacity in every deployment (the fitness wants it, unless its weight is 0)."""
    tolerances: dict[str, float] = field(default_factory=metrics.PAIR.tolerances, metadata=rule(Entries(Bounds(least=0), kind="metric")))
    """Metric -> a difference that does not matter: per cent for latencies, else in the metric's own unit. A metric that is left out has none."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield each rule that joins several settings and is broken, as a message."""
        if self.min_rounds > self.max_rounds:
            yield f"{at}max_rounds={self.max_rounds}: less than {at}min_rounds={self.min_rounds}. Set at least as many."
