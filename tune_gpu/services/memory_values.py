"""Input and output of the memory check: a device, and a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tune_gpu.common.errors import UserError


class MemoryVerdict(StrEnum):
    """Verdict of the memory check, before anything starts."""

    FITS = "fits"
    INFEASIBLE = "infeasible"
    """The candidate exceeds the memory by more than the prediction's uncertainty. It is never launched."""
    UNCERTAIN = "uncertain"
    """The prediction is within its uncertainty of the limit. Only a start can tell."""
    NOT_MODELLED = "not_modelled"
    """The memory of this model or flag is not understood, so there is no number."""


@dataclass(frozen=True)
class DeviceMemory:
    """A device as vLLM will see it at its start.

    Args:
        name: of the card or the CPU.
        kind: `cuda`, or `cpu`: the memory of a NUMA node.
        total_mib: the total of `torch.cuda.mem_get_info` (a little less than nvidia-smi prints: see `cards.py`); on the CPU the node's
            MemTotal, or the cgroup's limit if that is smaller.
        used_mib: memory of the neighbours, without the candidate's own services.
        cores: CPU cores, for a report.
        shares_host_memory: the card has no memory of its own (GB10, Jetson), so that its free memory is the host's.
    """

    name: str
    kind: str
    total_mib: float
    used_mib: float = 0.0
    cores: int | None = None
    shares_host_memory: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("cuda", "cpu"):
            raise UserError(f"device kind {self.kind!r}: not allowed. Set one of cuda, cpu.")
        if not self.total_mib > 0:
            raise UserError(f"total_mib={self.total_mib:g}: out of range. Set a number above 0.")
        if not 0 <= self.used_mib <= self.total_mib:
            raise UserError(f"used_mib={self.used_mib:g}: out of range. Set a number from 0 to total_mib={self.total_mib:g}.")

    @property
    def free_mib(self) -> float:
        """Return the free memory in MiB."""
        return self.total_mib - self.used_mib


@dataclass(frozen=True)
class Footprint:
    """Memory of a service whose memory grows, in MiB, while it works on its largest input."""

    mean_mib: float
    sigma_mib: float = 0.0
    """Standard deviation."""
    starts: int = 0
    """Earlier starts that it is the mean of; 0 if the kind computes it, or if the settings say it."""


@dataclass(frozen=True)
class Beside:
    """Memory that the other services of a candidate hold when an engine starts."""

    parts_mib: Mapping[str, float] = field(default_factory=dict)
    """Service -> MiB, the best estimate."""
    sigma_mib: float = 0.0
    """Standard deviation of their sum."""

    @property
    def total_mib(self) -> float:
        """Return the sum of the best estimates, in MiB."""
        return sum(self.parts_mib.values())

    def describe(self) -> str:
        """Return each part in words, `stt 537 MiB and embed 812 MiB`; empty if there is none."""
        return " and ".join(f"{name} {mib:.0f} MiB" for name, mib in self.parts_mib.items() if mib)


ALONE = Beside()
"""Nothing beside an engine."""


@dataclass(frozen=True)
class KvTokens:
    """KV-cache tokens: the best estimate, and a range that holds in nine of ten starts of a kind that it was not fitted to."""

    value: int
    low: int
    high: int


@dataclass(frozen=True)
class Prediction:
    """The predicted memory of a candidate, part by part, and whether it starts.

    `headroom_mib` is the rest of vLLM's share after one sequence of `max_model_len`. If it is negative, `shortfall_mib` is how much the
    nearest rule is missed by.
    """

    verdict: MemoryVerdict
    reason: str
    parts_mib: dict[str, float] = field(default_factory=dict)
    """weights, activation, cuda_graphs, non_torch, kv, each other service by its name, neighbours; kv is the rest of the share."""
    kv_cache_tokens: KvTokens | None = None
    max_concurrency: float | None = None
    """Sequences of `max_model_len` that fit the KV cache at the same time."""
    headroom_mib: float | None = None
    shortfall_mib: float = 0.0
    uncertainty_mib: float = 0.0
    """Two standard deviations of everything in the share except the KV cache."""
    calibrated: bool = False
    likely: bool | None = None
    """True if it fits by the best estimate, without the uncertainty; None if it is not modelled."""
    least_share: float | None = None
    """Smallest share (in steps of 0.01) that would hold this candidate, or None."""
    max_context: int | None = None
    """Longest context that this share holds, or 0."""
    service: str = ""
    """The engine that decides: the one that has least to spare."""
    takes_mib: float = 0.0
    """Memory that the engine holds once it runs: its share, and what is charged to no share."""

    def __post_init__(self) -> None:
        if self.verdict is MemoryVerdict.NOT_MODELLED and self.kv_cache_tokens is not None:
            raise ValueError("what is not modelled has no number")

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction for JSON."""
        return asdict(self)
