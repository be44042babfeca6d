"""A logged start (one row of `tests/data/vllm_memory/*.jsonl`), read as the predictor's inputs and as the truth.

A row is sparse: whatever the log did not show is null. What can be known of the engine without its account is its architecture, card and flags.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from tune_gpu.evaluation.memory_check.cards import USUAL_CUDA_PART, find_card
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture, from_config
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.parts import CUDA_CONTEXT_BYTES
from tune_gpu.services.vllm.memory.weight_formats import named_format
from tune_gpu.services.vllm.settings import VllmSettings

MIB_PER_GIB = 1024.0
LOG_CONTEXT_MIB = CUDA_CONTEXT_BYTES / 2**20
V0_TYPICAL, V1_TYPICAL = "0.7.3", "0.10.0"
"""Assumed where a log shows the engine's generation but not its version."""
_RELEASES = (  # the first issue after a release of vLLM, roughly: a log in an issue is of about that release
    (8100, "0.6.0"), (10400, "0.6.4"), (12400, "0.7.0"), (15000, "0.8.0"), (16600, "0.8.4"), (18900, "0.9.0"), (21500, "0.10.0"), (26100, "0.11.0"), (29900, "0.12.0"),
    (31000, "0.13.0"), (32700, "0.14.0"), (33300, "0.15.0"), (34500, "0.16.0"), (36000, "0.17.0"), (38000, "0.18.0"), (39500, "0.19.0"), (41000, "0.20.0"),
    (43000, "0.21.0"), (46000, "0.24.0"), (52000, "0.28.0"), (56000, "0.32.0"),
)
FURTHER_FLAGS = ("pipeline_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size", "speculative_config", "cpu_offload_gb",
                 "enable_lora", "kv_transfer_config", "kv_cache_memory_bytes", "num_gpu_blocks_override")
UNTOLD_CONTEXT = 8192
"""Where neither the row nor its architecture tells: the size of the cache hardly depends on it."""


@dataclass(frozen=True)
class LoggedStart:
    """One row."""

    row: dict[str, Any]
    model: ModelArchitecture | None
    why_no_model: str
    settings: VllmSettings
    device: DeviceMemory | None
    version: str
    v1: bool

    @property
    def id(self) -> str:
        return str(self.row.get("id") or self.row.get("source"))

    @property
    def suspect(self) -> bool:
        return bool(self.row.get("suspect"))

    @property
    def started(self) -> bool:
        return self.row.get("outcome") == "ok"

    @property
    def tokens(self) -> int | None:
        """KV tokens of a start that succeeded."""
        return self.row.get("kv_cache_tokens") if self.started else None

    def account_mib(self) -> tuple[float, float] | None:
        """(weights, everything else beside the KV cache), where the log prints its whole account."""
        values = [self.row.get(key) for key in ("weights_gib", "non_torch_gib", "activation_peak_gib")]
        known = [float(value) * MIB_PER_GIB for value in values if value is not None]
        if len(known) < len(values):
            return None
        weights, other, peak = known
        return weights, other + peak

    def kv_mib(self) -> float | None:
        """The log's own line for the memory of the KV cache."""
        value = self.row.get("kv_cache_gib")
        return None if value is None else float(value) * MIB_PER_GIB


def read_row(row: dict[str, Any], archs: dict[str, dict[str, Any]]) -> LoggedStart:
    """From one JSON line; never fails for a null or an unknown name. Raises ValueError for what is no JSON (Python reads NaN and Infinity)."""
    json.dumps(row, allow_nan=False)
    v1, version = _engine(row)
    model, why = _model(row, archs)
    settings = _settings(row, v1, version)
    if settings.max_model_len is None and model is not None and model.max_context is None:
        settings = replace(settings, max_model_len=UNTOLD_CONTEXT)
    return LoggedStart(row, model, why, settings, _device(row), version, v1)


def _engine(row: dict[str, Any]) -> tuple[bool, str]:
    note = f"{row.get('engine') or ''} {row.get('note') or ''}".lower()
    number = re.search(r"(\d+)\.(\d+)(?:\.\d+)?", str(row.get("vllm_version") or ""))
    if re.search(r"\bv0 (log|engine)|engine v0", note):
        return False, number[0] if number else _dated(row) or V0_TYPICAL
    if re.search(r"\bv1 (log|engine)|engine v1", note):
        return True, number[0] if number else _dated(row) or V1_TYPICAL
    if number:
        return (int(number[1]), int(number[2])) >= (0, 8), number[0]
    # Only engines before V1 print the whole account.
    return (True, _dated(row) or V1_TYPICAL) if row.get("non_torch_gib") is None or row.get("activation_peak_gib") is None else (False, V0_TYPICAL)


def _dated(row: dict[str, Any]) -> str | None:
    """The release at the time of the vLLM issue that the log was posted in; null for another source."""
    issue = re.search(r"vllm-project/vllm(?:#|/issues/|/pull/)(\d+)", str(row.get("source") or ""))
    return next((version for first, version in reversed(_RELEASES) if issue and int(issue[1]) >= first), None)


def _settings(row: dict[str, Any], v1: bool, version: str) -> VllmSettings:
    note = str(row.get("note") or "")
    batch = row.get("max_num_batched_tokens") or _number(note, r"max_num_batched_tokens\s*=?\s*(\d+)")
    flag = row.get("weights_format") or row.get("quantization")
    named = named_format(flag) or named_format(row.get("model"))
    extra = {name: row[name] for name in FURTHER_FLAGS if row.get(name)}
    if stages := re.search(r"\bPP\s*=?\s*(\d+)", note):
        extra.setdefault("pipeline_parallel_size", int(stages[1]))
    if offloaded := _number(note, r"cpu[_-]offload[_-]gb\s*=?\s*([\d.]+)"):
        extra.setdefault("cpu_offload_gb", offloaded)
    from tune_gpu.services.vllm.memory.engine_rules import EngineRules

    return VllmSettings(
        model=str(row.get("model") or row.get("arch") or "?"),
        gpu_memory_utilization=row.get("gpu_memory_utilization") or EngineRules.of(version, v1=v1).default_share,
        max_model_len=row.get("max_model_len"), max_num_seqs=row.get("max_num_seqs"), max_num_batched_tokens=int(batch) if batch else None,
        kv_cache_dtype=row.get("kv_cache_dtype") or "auto", quantization=None if named is None or named.name == "16bit" else named.name,
        block_size=row.get("block_size"), tensor_parallel_size=row.get("tensor_parallel_size") or 1, enforce_eager=bool(row.get("enforce_eager")),
        enable_chunked_prefill=row.get("enable_chunked_prefill"), extra_args=extra, env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"},
    )


def _model(row: dict[str, Any], archs: dict[str, dict[str, Any]]) -> tuple[ModelArchitecture | None, str]:
    name = row.get("arch")
    facts = archs.get(name) if name else None
    if facts is None:
        return None, f"the architecture {name} is not in the table" if name else "the row names no architecture"
    try:
        model = from_config(facts, f"{row.get('model') or ''} {name}".strip())
    except ValueError as error:
        return None, str(error)
    # A vision model told by its text backbone: the tower is there, in the weights and in the profiling run.
    whole = known_model(str(row.get("model") or ""))
    if whole and whole.get("_multimodal"):
        params = max(model.params, whole["params_b"] * 1e9)
        model = replace(model, multimodal=True, params=params, vision_params=max(0.0, params - model.params))
    return model, ""


def _device(row: dict[str, Any]) -> DeviceMemory | None:
    note, name = str(row.get("note") or ""), str(row.get("gpu") or "")
    card, total = find_card(name) if name else None, row.get("total_gib")
    if total is not None and re.search(r"nvidia-smi|nominal", note):
        total = card.cuda_mib / MIB_PER_GIB if card else total * USUAL_CUDA_PART
    if total is None:
        if card is None:
            return None
        total = (card.nvml_mib if "WSL2" in note else card.cuda_mib) / MIB_PER_GIB
    used = 0.0
    if row.get("free_gib") is not None:  # read when the engine's own context was there already
        used = max(0.0, (total - row["free_gib"]) * MIB_PER_GIB - LOG_CONTEXT_MIB)
    elif (held := _number(note, r"another[^.;]*? holds? ([\d.]+) GiB")) is not None:
        used = min(held, total) * MIB_PER_GIB
    shared = card is not None and card.shares_host_memory
    return DeviceMemory(card.name if card else name or "unknown", "cuda", total * MIB_PER_GIB, min(used, total * MIB_PER_GIB), shares_host_memory=shared)


def _number(text: str, pattern: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found and not math.isnan(float(found[1])) else None
