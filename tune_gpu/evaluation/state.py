"""What an evaluation has seen so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.telemetry.neighbours import Neighbours
from tune_gpu.telemetry.sampler import DeviceStats
from tune_gpu.workload.capacity import Capacity
from tune_gpu.workload.sessions.filling import Filling
from tune_gpu.workload.sessions.ideal import Ideal
from tune_gpu.workload.summary import TrafficSummary
from tune_gpu.workload.turn import Turn
from tune_gpu.workload.window import WindowResult


@dataclass
class EvaluationState:
    """The evaluation under way: written by its steps, read by the scoring."""

    params: dict[str, Any]
    first_window: int = 0
    engine_reused: bool = False
    """Every service that reserves its memory was kept from the candidate before."""
    reused: tuple[str, ...] = ()
    """Names of the services that were kept from the candidate before."""
    windows: list[WindowResult] = field(default_factory=list)
    device: list[DeviceStats] = field(default_factory=list)
    solo: dict[str, TrafficSummary] = field(default_factory=dict)
    capacity: Capacity | None = None
    ideals: list[Mapping[str, Ideal]] = field(default_factory=list)
    """For each window, what a prefix cache could have done for each LLM (service -> ideal), as far as its block size and its prompts' tokens are
    known. Empty without sessions."""
    at_once: dict[str, int] = field(default_factory=dict)
    """Service -> most requests in flight at any time since the first window began, the ramp included."""
    start_s: dict[str, float] = field(default_factory=dict)
    warm_s: float = 0.0
    load_s: float = 0.0
    n_invalid: int = 0
    n_out_of_memory: int = 0
    """Requests that Whisper had no memory for, counted in its log until the end of the last window."""
    transcripts: Sequence[Turn] = ()
    """Every clip once, by a Whisper of these settings."""
    fillings: Sequence[Filling] = ()
    """What filled the caches before the windows, the solo windows and the steps of the ramp; none without sessions."""
    neighbours: Neighbours = field(default_factory=Neighbours)
    unchecked: dict[str, None] = field(default_factory=dict)
    """What the device does not report, and what would go unnoticed for that reason (an ordered set)."""
