"""The device that something was measured on, as artifacts describe it."""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.artifacts.records.base import Record


@dataclass(frozen=True, kw_only=True)
class DeviceRecord(Record):
    """A processor or a card. Its other properties are kept as unknown fields."""

    kind: str = ""
    """`cuda`, `cpu`, `replayed` or `simulated`; empty if it is not known."""
    name: str | None = None
    total_mib: float | None = None
