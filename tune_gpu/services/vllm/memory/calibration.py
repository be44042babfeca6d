"""What a real start taught about a model on a device, and where it is kept.

The first start of an engine gives its true weights, the size of its KV cache and so everything else that goes off the share. Every other share
is then that measurement plus arithmetic. Kept as one JSON file, by model, format, vLLM version and device.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.common.places import cache_folder
from tune_gpu.config.schema import VllmSettings

MEASURED_FLAGS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "enable_chunked_prefill")
"""Flags that change the overhead: kept with a measurement, so that other values can be told apart from those measured."""
_SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """One measured start.

    Args:
        weights_mib: as vLLM's log says (`Model loading took`); on the CPU they are part of the overhead and may be 0.
        overhead_mib: the share less weights less KV cache: activation, graphs, non-torch memory (on the CPU: the process).
        token_bytes: bytes of the KV cache per token, of one block table; null keeps the arithmetic's.
        flags: those of `MEASURED_FLAGS` under which it was measured.
        repeatability_mib: how far apart two starts under the same flags may lie (one standard deviation).
    """

    weights_mib: float
    overhead_mib: float
    token_bytes: float | None = None
    vllm_version: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    repeatability_mib: float = 4.0
    starts: int = 1

    def __post_init__(self) -> None:
        if self.weights_mib < 0 or self.weights_mib + self.overhead_mib <= 0:
            raise ValueError(f"a start cannot have taken {self.weights_mib:g} MiB of weights and {self.overhead_mib:g} MiB beside them")

    @classmethod
    def from_start(
        cls, settings: VllmSettings, *, total_mib: float, kv_cache_mib: float, weights_mib: float = 0.0, token_bytes: float | None = None,
        vllm_version: str | None = None,
    ) -> Calibration:
        """From the size of its KV cache and the weights that its log names (see `start_log.calibrate`)."""
        overhead = settings.gpu_memory_utilization * total_mib - weights_mib - kv_cache_mib
        return cls(weights_mib, overhead, token_bytes, vllm_version, {name: getattr(settings, name) for name in MEASURED_FLAGS})

    def merged(self, other: Calibration) -> Calibration:
        """With one more start under the same flags: the mean of both; under other flags: the newer one."""
        if dict(self.flags) != dict(other.flags):
            return other
        count = self.starts
        return Calibration(
            (self.weights_mib * count + other.weights_mib) / (count + 1), (self.overhead_mib * count + other.overhead_mib) / (count + 1),
            other.token_bytes or self.token_bytes, other.vllm_version, dict(other.flags), self.repeatability_mib, count + 1,
        )


def calibration_key(settings: VllmSettings, vllm_version: str, device: str, start: str = "cold") -> str:
    """Return what a measurement is true for: model, dtype and quantisation, KV format, cards, version, device, how the engine was started, and the flags
    and variables that the settings have no name for (which graphs are captured, the largest image, the attention backend: GiBs).

    On the CPU an engine forked from a warm host keeps about 150 MiB less resident memory than one started cold (measured), so what one
    taught is not true of the other.
    """
    parts = (settings.model, settings.dtype, settings.quantization or "-", settings.kv_cache_dtype, f"tp{settings.tensor_parallel_size}",
             vllm_version, device, start)
    return " | ".join((*parts, *_further(settings)))


def _further(settings: VllmSettings) -> tuple[str, ...]:
    """A digest, for some are secrets; nothing where there are none. CUDA_… names the card and the trial's own MPS daemon."""
    env = {name: value for name, value in settings.env.items() if not name.startswith("CUDA_")}
    flags = {name: value for name, value in settings.extra_args.items() if value is not None}  # null is not handed over: of a knob that is not active
    if not flags and not env:
        return ()
    text = json.dumps([flags, env], sort_keys=True, default=str)
    return (f"with {hashlib.sha256(text.encode()).hexdigest()[:12]}",)


class CalibrationStore:
    """The measurements on disk: one JSON file, read whole and written whole (by rename).

    Args:
        path: the file; it need not exist. Null is the user's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or _default_path()
        self._entries: dict[str, Calibration] = self._read()

    def _read(self) -> dict[str, Calibration]:
        known = {item.name for item in fields(Calibration)}
        try:
            content = outside_files.read_json(self.path, outside_files.CALIBRATION)
            return {key: Calibration(**{k: v for k, v in entry.items() if k in known}) for key, entry in content["measurements"].items()}
        except outside_files.NotThere:
            return {}
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: not a file of calibrations ({error}); move it away and it is measured anew") from error

    def get(self, settings: VllmSettings, vllm_version: str, device: str, start: str = "cold") -> Calibration | None:
        """Return what is known of this engine on this device, started `cold` or `warm`."""
        return self._entries.get(calibration_key(settings, vllm_version, device, start))

    def learn(self, settings: VllmSettings, device: str, measured: Calibration, start: str = "cold") -> Calibration:
        """Add a measurement and write the file; returns what is now known. Raises UserError where the file cannot be written."""
        key = calibration_key(settings, measured.vllm_version or "-", device, start)
        self._entries = self._read()  # another run may have learnt something meanwhile
        known = self._entries.get(key)
        self._entries[key] = known.merged(measured) if known else measured
        self._write()
        return self._entries[key]

    def _write(self) -> None:
        content = {"schema": _SCHEMA, "measurements": {key: asdict(entry) for key, entry in sorted(self._entries.items())}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
            Path(name).replace(self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); set TUNE_GPU_CACHE to a folder that can") from error

    def __len__(self) -> int:
        return len(self._entries)


def _default_path() -> Path:
    return cache_folder() / "calibration.json"
