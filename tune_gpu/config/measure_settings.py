"""Settings of a measurement: its traffic, its validity, and the confirmation of differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tune_gpu import metrics
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.languages import check_language
from tune_gpu.config.rules import By, Entries, Items, OneOf, bounded, one_of, rule, ruled
from tune_gpu.config.session_settings import BUILT_IN, ArrivalSettings, AuxiliarySettings, ProfileSettings, TurnTakingSettings

LONGEST_PAUSE = 1.5
"""A caller's longest pause in the ramp, as a multiple of `session_pause_s`."""


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
    """Language of the utterances, as Whisper's code; it decides how errors are counted. null: English for `samples`, else
    `services.whisper.language`."""
    max_utterance_s: float = bounded(30.0, above=0)


@dataclass
class TextSettings:
    """The texts that turns begin with if their first service takes text."""

    source: str = "samples"
    """`samples` (built-in requests of users) or a file with one text per line."""


@dataclass
class WorkloadSettings:
    """The traffic of one evaluation. A space may also give it under `traffic`."""

    kind: str = one_of("requests", "requests", "sessions")
    """`requests`: turns that have nothing to do with one another. `sessions`: callers with a history, who wait, listen, think and go on."""
    audio: AudioSettings = field(default_factory=AudioSettings)
    texts: TextSettings = field(default_factory=TextSettings)
    turn: list[str] | None = None
    """The services that a turn passes through, in order. null: for the default pair speech to text and then the LLM, else the one service
    that has an API."""
    voice: str | None = None
    """The voice that is requested from a speech service without a `voice` among its own settings. Such a setting is followed, candidate by
    candidate, and this must not contradict it. null for the server's default."""
    turn_rate_per_s: float = bounded(0.5, above=0)
    """Mean arrival rate of turns (Poisson, open loop)."""
    background: dict[str, float] = field(default_factory=dict, metadata=rule(Entries(Bounds(least=0), kind="service")))
    """Service -> mean arrival rate of its requests from other users (Poisson, open loop)."""
    background_rate_per_s: float = bounded(0.0, least=0)
    """Mean arrival rate of such requests to the LLM of the turns."""
    background_prompt_tokens: int = bounded(128, least=1)
    max_tokens: int = bounded(32, above=0)
    """Length of each answer (the end-of-text token is ignored, so that every answer has the same length)."""
    warmup_turns: int = bounded(2, least=0)
    window_s: float = bounded(10.0, above=0)
    windows: int = bounded(1, above=0)
    solo_window_s: float = bounded(0.0, least=0)
    """Seconds for which each service is also measured alone, for the interference ratio; 0 to skip this."""
    request_timeout_s: float = bounded(30.0, above=0)
    max_inflight_turns: int = bounded(64, above=0)
    capacity_max_sessions: int = bounded(8, above=0)
    """Largest number of sessions in the ramp of `concurrent_capacity`."""
    capacity_step_s: float = bounded(3.0, least=0)
    """Seconds that each step of the ramp is held; 0 to not measure the capacity."""
    session_pause_s: float = bounded(0.5, least=0)
    """A caller's mean pause between an answer and the next utterance, in the ramp."""
    capacity_hopeless_load: float = bounded(1.5, above=0)
    """A step is held a second time if it fails, unless its load (value divided by target) is above this."""
    arrivals: ArrivalSettings = field(default_factory=ArrivalSettings)
    """This setting and those below are of `kind: sessions`."""
    steady_state: bool = True
    """Sessions are under way when a window begins, as if they had begun earlier. `false`: all callers arrive within the window."""
    profiles: dict[str, ProfileSettings] = field(default_factory=dict)
    """Name -> callers of that kind; one profile `callers` with the defaults if none is given."""
    turn_taking: TurnTakingSettings = field(default_factory=TurnTakingSettings)
    history: str | None = ruled(None, OneOf(("recorded", "own")))
    """What a prompt's history holds: the plan's answers, so that prompts are equal for all candidates, or the server's own. null: `recorded` in
    the search, `own` in a comparison."""
    llm_hears: str | None = ruled(None, OneOf(("reference", "transcript")))
    """What the LLM gets of spoken words. null: `reference` in the search, `transcript` in a comparison. Speech to text is measured in any case."""
    listen_wpm: float = bounded(150.0, least=0, most=10_000)
    """Words per minute at which callers listen if no service speaks the answer; 0: they do not listen."""
    auxiliary: dict[str, AuxiliarySettings] = field(default_factory=dict)
    """Name -> requests beside the turns."""
    half: str = one_of("search", "search", "comparison", "all")
    """The half of each source's conversations that is used. Comparisons use the other half; `all`: both use all."""

    @property
    def has_sample_clips(self) -> bool:
        """Return whether built-in clips may be spoken. In sessions it is for the profiles to say."""
        own = self.has_sessions and self.profiles and all(profile.source not in BUILT_IN for profile in self.profiles.values())
        return self.audio.source == "samples" and not own

    @property
    def has_sessions(self) -> bool:
        """Return whether the traffic is made of sessions."""
        return self.kind == "sessions"

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        if self.has_sample_clips and self.audio.language not in (None, "en"):
            yield f"{at}audio.language={self.audio.language}: the clips of {at}audio.source=samples are English. Give a folder of your own."
        if self.has_sessions:
            rates = {"background_rate_per_s": self.background_rate_per_s} | {f"background.{name}": rate for name, rate in self.background.items()}
            if given := [f"{at}{name}={rate:g}" for name, rate in rates.items() if rate > 0]:
                yield f"{given[0]}: not used by {at}kind=sessions. Set it to 0, and give such requests under {at}auxiliary."
            return
        if given := [name for name in ("profiles", "auxiliary") if getattr(self, name)]:
            yield f"{at}{given[0]}: not used by {at}kind={self.kind}. Set {at}kind=sessions, or remove it (~{at}{given[0]})."
        longest_pause_s = LONGEST_PAUSE * self.session_pause_s
        if 0 < self.capacity_step_s <= longest_pause_s:  # a step without speech would give a capacity of 0 although nothing was measured
            yield (
                f"{at}capacity_step_s={self.capacity_step_s:g}: shorter than a caller's longest pause ({at}session_pause_s={self.session_pause_s:g}). "
                f"Set 0 (no ramp) or a number above {longest_pause_s:g}."
            )


@dataclass
class TelemetrySettings:
    """Limits that make a window of load invalid. A disturbed window is measured again; see `telemetry/verdicts.py`."""

    max_invalid_windows: int = bounded(2, least=0)
    """Maximum number of invalid windows that are measured again per evaluation; with one more it fails as `measurement_invalid`."""
    max_throttled_share: float = bounded(0.1, above=0, most=1)
    """Maximum share of readings in which heat or power holds the clocks down."""
    power_cap_invalidates: bool = True
    """`false` for a card that always runs at its power cap: only heat and falling clocks then disturb a window."""
    max_clock_fall_share: float = bounded(0.15, above=0, most=1)
    """Maximum fall of the clock under load, as a share: within a window, and compared with the earlier windows."""


@dataclass
class ConfirmSettings:
    """Settings of a comparison: `tune-gpu compare`, and the confirmation at the end of every run. Arms are deployed in turn, round after
    round, under the same traffic. The statistics are in `tune_gpu/compare/`."""

    enabled: bool = True
    """Confirm the search's best before the run names its winner."""
    metric: str = metrics.FITNESS.name
    """Metric in which the winner must be better than the baseline to be `confirmed`."""
    candidates: int = bounded(2, least=1)
    """Number of the search's best configurations that are compared, including the best of all."""
    confidence: float = bounded(0.95, least=0.5, below=1)
    """Confidence level per metric. All looks at a growing comparison share the error probability (1 minus this level)."""
    min_rounds: int = bounded(3, least=3)
    """Rounds before the first look. Fewer give no interval: two deployments of an arm hardly show how much its deployments differ."""
    max_rounds: int = bounded(12, most=500)
    budget_s: float = bounded(1800.0, least=0)
    """Time budget of a run's confirmation, which then ends with or without a verdict (`--budget-s` of a command replaces it). The
    confirmation is skipped if, by the run's own times, `min_rounds` do not fit."""
    windows: int | None = bounded(None, least=1)
    """Windows per deployment; null: `workload.windows`, or one if more do not fit into the budget."""
    window_s: float | None = bounded(None, above=0)
    capacity: bool = True
    """Also measure the capacity in every deployment (the fitness needs it, unless its weight is 0)."""
    tolerances: dict[str, float] = field(default_factory=metrics.PAIR.tolerances, metadata=rule(Entries(Bounds(least=0), kind="metric")))
    """Metric -> largest difference that does not matter: per cent for latencies, else in the metric's own unit. A metric that is left out
    has no tolerance."""

    def conflicts(self, at: str) -> Iterator[str]:
        """Yield a message for each broken rule that joins several settings."""
        if self.min_rounds > self.max_rounds:
            yield f"{at}max_rounds={self.max_rounds}: less than {at}min_rounds={self.min_rounds}. Set at least {self.min_rounds}."
