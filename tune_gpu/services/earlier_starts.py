"""Keep what earlier starts of a service took, for services whose kind has no model of its memory.

One JSON file, by kind, settings and device. A start is kept once: its peak grows while it is measured. Several trials write at the same time.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.redaction import holds_secret
from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.file_lock import alone
from tune_gpu.common.places import cache_folder
from tune_gpu.services.base import Service, fingerprint
from tune_gpu.services.memory_values import DeviceMemory, Footprint

RULE = 1
"""Raise it when a peak is measured in another way, so that older peaks are not used."""
_SCHEMA = 1
_MOST_STARTS = 32
"""Starts that are kept of one service; the oldest is dropped first."""
_MOST_SERVICES = 5000
"""Services that are kept; the one that started longest ago is dropped first."""
_NOT_OF_MEMORY = ("memory_mib", "start_timeout_s", "stop_grace_s")
"""Settings that change no memory."""
_LEAST_DOUBT_MIB = 16.0
_DOUBT_UNDER_LOAD, _DOUBT_WARMED = 0.05, 0.2
"""Standard deviation of a single start as a part of its peak, before several starts have shown it."""
_PRIOR_STARTS = 2
"""Starts that this doubt is worth beside the spread that was seen."""


@dataclass(frozen=True)
class Start:
    """The peak of one start in MiB, of all its processes on its device."""

    mib: float
    under_load: bool
    """It was measured under load; if not, only until it was warmed."""


def footprint_of(starts: Mapping[str, Start]) -> Footprint:
    """Return the mean of the peaks, with the doubt of a further start.

    Starts that were measured under load count; only without any, those that were warmed. The variance is pooled with that of the prior, and a
    further start differs from the mean of n by sigma * sqrt(1 + 1/n).
    """
    loaded = [start.mib for start in starts.values() if start.under_load]
    peaks = loaded or [start.mib for start in starts.values()]
    mean, count = statistics.fmean(peaks), len(peaks)
    prior = max(_LEAST_DOUBT_MIB, (_DOUBT_UNDER_LOAD if loaded else _DOUBT_WARMED) * mean)
    spread = sum((peak - mean) ** 2 for peak in peaks)
    variance = (_PRIOR_STARTS * prior**2 + spread) / (_PRIOR_STARTS + count - 1)
    return Footprint(mean, math.sqrt(variance * (1 + 1 / count)), starts=count)


def service_key(service: Service, device: DeviceMemory) -> str:
    """Return the conditions under which a peak is valid: kind, settings, device, and the rule by which it is measured.

    Settings are digested without the values of secrets, whose names stay. `CUDA_…` names the card and the trial's own MPS daemon.
    """
    settings = {name: value for name, value in asdict(service.settings).items() if name not in _NOT_OF_MEMORY}
    if isinstance(env := settings.get("env"), Mapping):
        settings["env"] = {name: value for name, value in env.items() if not name.startswith("CUDA_")}
    return " | ".join((service.kind.name, fingerprint(_public("", settings)), device.kind, device.name, f"rule {RULE}"))


def _public(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(inner): _public(str(inner), each) for inner, each in value.items()}
    return None if holds_secret(name, value) else value


class EarlierStarts:
    """The starts on disk: one JSON file, read whole, changed by one process at a time and replaced atomically.

    Args:
        path: the file, which need not exist. None is one in the user's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "starts.json"
        self._services = self._read()

    def footprint(self, service: Service, device: DeviceMemory) -> Footprint | None:
        """Return what earlier starts of this service took on this device, or None if there was none."""
        starts = self._services.get(service_key(service, device))
        return footprint_of(starts) if starts else None

    def learn(self, service: Service, device: DeviceMemory, start: str, mib: float, *, under_load: bool) -> None:
        """Keep the peak of a start, or raise the one that is kept of it.

        Args:
            service: that was started.
            device: that it runs on.
            start: a name that no other start has.
            mib: its peak until now.
            under_load: it has been measured under load.

        Raises:
            UserError: the file cannot be written.
        """
        key = service_key(service, device)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self.path):
                self._services = self._read()
                starts = self._services.pop(key, {})
                known = starts.pop(start, Start(0.0, under_load=False))
                starts[start] = Start(round(max(mib, known.mib), 1), under_load or known.under_load)
                self._services[key] = dict(list(starts.items())[-_MOST_STARTS:])
                self._services = dict(list(self._services.items())[-_MOST_SERVICES:])
                write_whole(self.path, json.dumps(self._as_json(), indent=1))
        except OSError as error:
            raise UserError(f"TUNE_GPU_CACHE: {self.path} cannot be written ({error.strerror}). Set it to a writable folder.") from error

    def _read(self) -> dict[str, dict[str, Start]]:
        try:
            content = outside_files.read_json(self.path, outside_files.STARTS)
            return {key: {name: _start(each) for name, each in starts.items()} for key, starts in content["services"].items()}
        except outside_files.NotThere:
            return {}
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: not a file of earlier starts ({error}). Move it away, and it is measured again.") from error

    def _as_json(self) -> dict[str, Any]:
        return {"schema": _SCHEMA, "services": {key: {name: asdict(each) for name, each in starts.items()} for key, starts in self._services.items()}}


def _start(content: Mapping[str, Any]) -> Start:
    mib = float(content["mib"])
    if not (math.isfinite(mib) and mib > 0):
        raise ValueError(f"a start cannot have taken {mib:g} MiB")
    return Start(mib, content["under_load"] is True)
