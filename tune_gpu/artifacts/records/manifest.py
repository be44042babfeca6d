"""The device, versions and command of a run: `manifest.json`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tune_gpu.artifacts.records.base import OPTIONAL, SCHEMA_VERSION, Record
from tune_gpu.artifacts.records.devices import DeviceRecord


@dataclass(frozen=True, kw_only=True)
class ProcessRecord(Record):
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int | None = None
    start_ticks: int | None = None
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class GitState(Record):
    """The source that ran."""

    commit: str
    dirty: bool = False
    """The source differs from the commit."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """The manifest of a run. A resumed run keeps those of the attempts before it."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    started_at: str | None = None
    resumed_at: str | None = None
    ended_at: str | None = None
    """None while the run is running, or if it was killed."""
    argv: tuple[str, ...] = ()
    seed: int | None = None
    device: str | None = None
    devices: tuple[DeviceRecord, ...]
    process: ProcessRecord | None = None
    host: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    git: GitState | None = None
    """None outside a checkout."""
    resumed_from: tuple[Manifest, ...] = ()
    neighbours: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    """Use of the device by other processes when the run began."""
    traffic: str | None = field(default=None, metadata=OPTIONAL)
    """Hash of the run's traffic; None in old runs."""

    @property
    def recorded_traffic(self) -> str | None:
        """Return the hash of the traffic of the latest attempt that states one."""
        return next((each.traffic for each in reversed(self.attempts()) if each.traffic is not None), None)

    def attempts(self) -> tuple[Manifest, ...]:
        """Return the manifests of all attempts, oldest first, each without the earlier ones."""
        return (*self.resumed_from, replace(self, resumed_from=(), absent=(self.absent or frozenset()) | {"resumed_from"}))
