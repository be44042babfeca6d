"""Keep what a real start has shown about a model on a device.

The first start of an engine reveals its true weights, the size of its KV cache and so everything else that is deducted from the share.
Every other share is then that measurement plus arithmetic. Kept as one JSON file, by model, format, vLLM version and device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.file_lock import alone
from tune_gpu.common.places import cache_folder
from tune_gpu.services.vllm.settings import VllmSettings

MEASURED_FLAGS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "enforce_eager", "enable_chunked_prefill")
"""Flags that change the overhead. They are kept with a measurement, to distinguish other values from the measured ones."""
_SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """One measured start.

    Args:
        weights_mib: from vLLM's log (`Model loading took`); on the CPU they are part of the overhead and may be 0.
        overhead_mib: the share less weights less KV cache: activation, graphs, non-torch memory (on the CPU: the process).
        token_bytes: bytes of the KV cache per token, of one block table; None keeps the arithmetic's.
        flags: those of `MEASURED_FLAGS` under which it was measured.
        repeatability_mib: standard deviation between two starts under the same flags.
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
        """Make a calibration from the size of the KV cache and the weights in the log (see `start_log.calibrate`)."""
        overhead = settings.gpu_memory_utilization * total_mib - weights_mib - kv_cache_mib
        return cls(weights_mib, overhead, token_bytes, vllm_version, {name: getattr(settings, name) for name in MEASURED_FLAGS})

    def merged(self, other: Calibration) -> Calibration:
        """Return the mean with one more start under the same flags, or the newer one under other flags."""
        if dict(self.flags) != dict(other.flags):
            return other
        count = self.starts
        return Calibration(
            (self.weights_mib * count + other.weights_mib) / (count + 1), (self.overhead_mib * count + other.overhead_mib) / (count + 1),
            other.token_bytes or self.token_bytes, other.vllm_version, dict(other.flags), self.repeatability_mib, count + 1,
        )


def calibration_key(settings: VllmSettings, vllm_version: str, device: str, start: str = "cold") -> str:
    """Return the conditions under which a measurement is valid.

    These are model, dtype and quantisation, KV format, cards, version, device, the way the engine was started, and the flags and variables
    that have no setting (which graphs are captured, the largest image, the attention backend: GiBs). On the CPU an engine forked from a
    fork server keeps about 150 MiB less resident memory than one started cold (measured), so a measurement of one is not valid for the other.
    """
    parts = (settings.model, settings.dtype, settings.quantization or "-", settings.kv_cache_dtype, f"tp{settings.tensor_parallel_size}",
             vllm_version, device, start)
    return " | ".join((*parts, *_further(settings)))


def _further(settings: VllmSettings) -> tuple[str, ...]:
    """Return a digest of further flags, because some are secrets, or nothing without any. CUDA_… names the card and the trial's own MPS
    daemon."""
    env = {name: value for name, value in settings.env.items() if not name.startswith("CUDA_")}
    # None is not passed on: the value of a knob that is not active.
    flags = {name: value for name, value in settings.extra_args.items() if value is not None}
    if not flags and not env:
        return ()
    text = json.dumps([flags, env], sort_keys=True, default=str)
    return (f"with {hashlib.sha256(text.encode()).hexdigest()[:12]}",)


class CalibrationStore:
    """The measurements on disk: one JSON file, read whole, and replaced atomically.

    Args:
        path: the file, which need not exist. None is one in the user's cache folder.
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
            raise UserError(f"{self.path}: not a file of calibrations ({error}). Move it away, and it is measured again.") from error

    def get(self, settings: VllmSettings, vllm_version: str, device: str, start: str = "cold") -> Calibration | None:
        """Return the calibration of this engine on this device, started `cold` or `warm`, or None."""
        return self._entries.get(calibration_key(settings, vllm_version, device, start))

    def learn(self, settings: VllmSettings, device: str, measured: Calibration, start: str = "cold") -> Calibration:
        """Add a measurement, write the file, and return the calibration. Raise UserError if the file cannot be written."""
        key = calibration_key(settings, measured.vllm_version or "-", device, start)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self.path):
                self._entries = self._read()  # another run may have added something meanwhile
                known = self._entries.get(key)
                self._entries[key] = known.merged(measured) if known else measured
                write_whole(self.path, json.dumps({"schema": _SCHEMA, "measurements": self._as_json()}, indent=1))
        except OSError as error:
            raise UserError(f"TUNE_GPU_CACHE: {self.path} cannot be written ({error.strerror}). Set it to a writable folder.") from error
        return self._entries[key]

    def _as_json(self) -> dict[str, Any]:
        return {key: asdict(entry) for key, entry in sorted(self._entries.items())}

    def __len__(self) -> int:
        return len(self._entries)


def _default_path() -> Path:
    return cache_folder() / "calibration.json"
