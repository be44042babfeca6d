"""Make a `Calibration` from a real start, by its log and its `vllm:cache_config_info` metric."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import MIB
from tune_gpu.services.vllm.memory.budget import estimate_memory
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.parts import engines
from tune_gpu.services.vllm.settings import VllmSettings

_PATTERNS = {
    # GPU, V0 and V1
    "weights": r"Model loading took ([\d.]+) ?Gi?B|Loading model weights took ([\d.]+) GB|model weights take ([\d.]+) ?GiB",
    "kv": r"Available KV cache memory: (-?[\d.]+) GiB|reserved for KV Cache is (-?[\d.]+) ?GiB|Auto set \((-?[\d.]+)/[\d.]+\) GiB for KV cache",
    "total": r"total_gpu_memory \(([\d.]+) ?GiB\)|Auto set \(-?[\d.]+/([\d.]+)\) GiB|Available memory on node \d+ \(-?[\d.]+/([\d.]+) GiB\)",
    # CPU
    "consumed": r"([\d.]+) GiB memory was consumed by non-kv usages",
}


@dataclass(frozen=True)
class StartLog:
    """Facts of a log in MiB, or None. vLLM prints two decimals of a GiB, so each is within 5 MiB."""

    weights_mib: float | None
    kv_mib: float | None
    total_mib: float | None
    consumed_mib: float | None


def read_start_log(log: str) -> StartLog:
    """Return the memory lines of a server's log (the first of each kind; with several cards, those of the first)."""
    found: dict[str, float | None] = {}
    for name, pattern in _PATTERNS.items():
        match = re.search(pattern, log)
        text = next((group for group in match.groups() if group), None) if match else None
        found[name] = None if text is None else _mib(text)
    return StartLog(found["weights"], found["kv"], found["total"], found["consumed"])


def _mib(gib: str) -> float | None:
    try:
        return float(gib) * 1024
    except ValueError:  # digits and dots that are not a number
        return None


def learn_from_start(
    settings: VllmSettings, device: DeviceMemory, model: ModelArchitecture, log: str, *, num_gpu_blocks: int | None, block_size: int | None,
    vllm_version: str,
) -> Calibration | None:
    """Return the calibration from a start on this device, or None if neither the log nor the metric has the size of the KV cache, or if the
    settings decide it.

    The number of blocks gives the cache to within one block, which is finer than the log's two decimals. The bytes of a block are the
    arithmetic's, unless the log contradicts them by more than its rounding. The total is the log's if it differs from the device's reading
    (a virtual machine's memory grows), else the reading. With data parallel engines the log's first line is that of one engine, and the
    number of blocks that of all (vLLM, `v1/engine/core_client.py`).
    """
    if settings.kv_cache_memory_bytes is not None:  # the size of the cache then says nothing of what was deducted
        return None
    logged = read_start_log(log)
    total_mib = device.total_mib
    if logged.total_mib is not None and abs(logged.total_mib - total_mib) > 6.0:
        total_mib = logged.total_mib
    seen = replace(device, total_mib=total_mib, used_mib=min(device.used_mib, total_mib))
    budget = estimate_memory(settings, seen, model, version=vllm_version)
    token_bytes = budget.layout.bytes_per_token
    kv_mib = logged.kv_mib
    num_gpu_blocks = (num_gpu_blocks or 0) // engines(settings.extra_args)
    if num_gpu_blocks and block_size:
        from_blocks = (num_gpu_blocks + 0.5) * block_size * token_bytes / MIB
        rounding = 6.0 + 0.5 * block_size * token_bytes / MIB
        if kv_mib is None or abs(from_blocks - kv_mib) <= max(rounding, 0.01 * kv_mib):
            kv_mib = from_blocks
        else:
            token_bytes = kv_mib * MIB / (num_gpu_blocks * block_size)
    if kv_mib is None or kv_mib <= 0:
        return None
    weights_mib = logged.weights_mib if logged.weights_mib is not None else budget.weights / MIB
    found = Calibration.from_start(settings, total_mib=total_mib, kv_cache_mib=kv_mib, weights_mib=weights_mib, vllm_version=vllm_version)
    return replace(found, token_bytes=token_bytes)


__all__ = ["StartLog", "learn_from_start", "read_start_log"]
