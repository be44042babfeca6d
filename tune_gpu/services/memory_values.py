"""What the preflight takes and gives: a device, and a prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tune_gpu.common.errors import UserError


class MemoryVerdict(StrEnum):
    """What is known before anything starts."""

    FITS = "fits"
    INFEASIBLE = "infeasible"
    """It cannot start, by more than the prediction's uncertainty: never launched."""
    UNCERTAIN = "uncertain"
    """Within the uncertainty of the edge: only a start can tell."""
    NOT_MODELLED = "not_modelled"
    """The memory of this model or flag is not understood, so no number is given."""


@dataclass(frozen=True)
class DeviceMemory:
    """A device as vLLM will see it at its start.

    Args:
        name: of the card or the CPU.
        kind: `cuda`, or `cpu`: the memory of a NUMA node.
        total_mib: what `torch.cuda.mem_get_info` calls total (a little less than what nvidia-smi prints: see `cards.py`); on the CPU the
            node's MemTotal, or the cgroup's limit if that is smaller.
        used_mib: what the neighbours hold, Whisper of the candidate left out.
        cores: CPU cores, for a report.
        shares_host_memory: the card has no memory of its own (GB10, Jetson): what is free on it is what is free on the host.
    """

    name: str
    kind: str
    total_mib: float
    used_mib: float = 0.0
    cores: int | None = None
    shares_host_memory: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("cuda", "cpu"):
            raise UserError(f"device kind {self.kind!r}: allowed are cuda, cpu")
        if not self.total_mib > 0:
            raise UserError(f"total_mib={self.total_mib:g}: allowed is above 0")
        if not 0 <= self.used_mib <= self.total_mib:
            raise UserError(f"used_mib={self.used_mib:g}: allowed is 0 to total_mib={self.total_mib:g}")

    @property
    def free_mib(self) -> float:
        """Return what nobody holds."""
        return self.total_mib - self.used_mib


@dataclass(frozen=True)
class KvTokens:
    """KV-cache tokens: the best estimate and the range it is within, 19 times out of 20."""

    value: int
    low: int
    high: int


@dataclass(frozen=True)
class Prediction:
    """What a candidate will take, part by part, and whether it starts.

    `headroom_mib` is how much of vLLM's share remains after one sequence of `max_model_len`; negative where it does not fit, and then
    `shortfall_mib` is by how much the nearest rule is missed.
    """

    verdict: MemoryVerdict
    reason: str
    parts_mib: dict[str, float] = field(default_factory=dict)
    """weights, activation, cuda_graphs, non_torch, kv, whisper, neighbours; kv is what remains of the share."""
    kv_cache_tokens: KvTokens | None = None
    max_concurrency: float | None = None
    """Sequences of `max_model_len` that fit the KV cache at the same time."""
    headroom_mib: float | None = None
    shortfall_mib: float = 0.0
    uncertainty_mib: float = 0.0
    """Two standard deviations of everything in the share that is not KV cache."""
    calibrated: bool = False
    likely: bool | None = None
    """Whether it fits by the best estimate, uncertainty set aside; null where it is not modelled."""
    least_share: float | None = None
    """The smallest share (in steps of 0.01) that would hold this candidate; null if none does."""
    max_context: int | None = None
    """The longest context that this share holds; 0 if none."""

    def __post_init__(self) -> None:
        if self.verdict is MemoryVerdict.NOT_MODELLED and self.kv_cache_tokens is not None:
            raise ValueError("what is not modelled has no number")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
