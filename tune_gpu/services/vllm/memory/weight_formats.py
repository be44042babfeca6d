"""Bytes of a weight, by quantisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tune_gpu.common.errors import UserError


@dataclass(frozen=True)
class WeightFormat:
    """Bits of a weight in a linear layer, with its scales and zero points. Embeddings stay in 16 bits."""

    name: str
    bits: float
    embeddings_too: bool = False
    experts_only: bool = False
    """True if attention stays in 16 bits as well."""
    attention_kept: bool = False
    """True if this checkpoint leaves attention in 16 bits."""


_FORMATS = {
    # Groups of 128 with a 16-bit scale, and a zero point with as many bits as a weight.
    "awq": WeightFormat("awq", 4 + 20 / 128), "gptq": WeightFormat("gptq", 4 + 20 / 128), "int4": WeightFormat("int4", 4 + 20 / 128),
    "gptq-8": WeightFormat("gptq-8", 8 + 24 / 128),
    # NF4 with double quantisation: blocks of 64 with an 8-bit scale, and a 32-bit one for 256 of those.
    "bnb-4bit": WeightFormat("bnb-4bit", 4 + 8 / 64 + 32 / (64 * 256)), "bnb-8bit": WeightFormat("bnb-8bit", 8 + 32 / 4096),
    # FP4 (NVIDIA): blocks of 16 with an 8-bit scale; MXFP4: of 32.
    "nvfp4": WeightFormat("nvfp4", 4.5), "mxfp4": WeightFormat("mxfp4", 4.25, experts_only=True),
    "fp8": WeightFormat("fp8", 8.0), "int8": WeightFormat("int8", 8.0),
    "fp32": WeightFormat("fp32", 32.0, embeddings_too=True),
    "16bit": WeightFormat("16bit", 16.0, embeddings_too=True),
}
_GGUF = re.compile(r"(?:^|[^a-z0-9])i?q([2-68])(?:_[a-z0-9_]*)?(?:$|[^a-z0-9])")
_GGUF_BITS = {2: 3.0, 3: 3.9, 4: 4.85, 5: 5.7, 6: 6.56, 8: 8.5}
"""The usual mixtures (Q4_K_M, Q5_K_M …), with embeddings. A file's own header is exact (`checkpoint.py`)."""
_PATTERNS = (
    (r"nvfp4|modelopt.*fp4|fp4.*modelopt", "nvfp4"), (r"mxfp4", "mxfp4"),
    (r"bnb.?8|bitsandbytes.?8|load_in_8bit", "bnb-8bit"), (r"bnb|bitsandbytes|nf4", "bnb-4bit"),
    (r"(gptq|auto.?round).*(8.?bit|int8|w8)", "gptq-8"), (r"gptq|auto.?round", "gptq"), (r"awq", "awq"),
    (r"w4a16|w4a8|int4|4.?bit|marlin|\bq4", "int4"), (r"w8a8|w8a16|int8|8.?bit", "int8"), (r"fp8|float8|fbgemm|modelopt", "fp8"),
    (r"float32|fp32", "fp32"), (r"bf16|fp16|bfloat16|float16|half|16.?bit", "16bit"),
)
_PUBLISHED = ((r"kimi-?k2.*thinking", "int4"), (r"deepseek-?(v3|r1)|kimi-?k2|minimax-?m2", "fp8"), (r"gpt-?oss", "mxfp4"))
NAMES = ("awq", "awq_marlin", "gptq", "gptq_marlin", "fp8", "int8", "compressed-tensors", "bitsandbytes", "modelopt", "nvfp4", "mxfp4")


def named_format(name: str | None) -> WeightFormat | None:
    """Return the format that a flag (`awq_marlin`), a table's word (`bnb-4bit`) or a model's name (`…-GPTQ-Int4`) names, or None."""
    lowered = (name or "").lower()
    if (mixture := _GGUF.search(lowered)) is not None:
        return WeightFormat(f"gguf-q{mixture[1]}", _GGUF_BITS[int(mixture[1])], embeddings_too=True)
    return next((_FORMATS[known] for pattern, known in _PATTERNS if re.search(pattern, lowered)), None)


def published_format(name: str) -> WeightFormat | None:
    """Return the format of families that are published quantised without a name for it, or None for others and for a conversion to 16
    bits."""
    lowered = name.lower()
    if re.search(r"distill|qwen|llama|bf16|fp16|bfloat16|float16", lowered):
        return None
    return next((_FORMATS[known] for pattern, known in _PUBLISHED if re.search(pattern, lowered)), None)


def weight_format(config: Mapping[str, Any] | None, layers: int = 0) -> WeightFormat | None:
    """Return the format in the `quantization_config` of a checkpoint with this many layers, or None."""
    found = _stored_format(config) if config else None
    return replace(found, attention_kept=True) if found is not None and config and _keeps_attention(config, layers) else found


_LEFT_OUT = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
_TOWER = re.compile(r"vision|visual|audio|tower|vpm|encoder")
_MOST_LAYERS = 0.75
"""Share of the layers that a checkpoint must name for their attention to count as left out."""


def _keeps_attention(config: Mapping[str, Any], layers: int) -> bool:
    """Return True if the modules that are not quantised are the attention of (nearly) every layer."""
    named = [str(each) for key in _LEFT_OUT for holder in (config, _inner(config)) for each in (holder.get(key) or []) if "attn" in str(each)]
    named = [each for each in named if not _TOWER.search(each)]
    if any(re.search(r"layers(\\?\.)?(\*|\.\*|\\d|\(|\[)|^(re:)?\.?\*.*attn", each) and not re.search(r"norm|indexer|gate", each) for each in named):
        return True
    numbers = {found[1] for each in named if (found := re.search(r"layers\.(\d+)\..*attn", each))}
    return layers > 0 and len(numbers) >= _MOST_LAYERS * layers


def _stored_format(config: Mapping[str, Any]) -> WeightFormat | None:
    method, algorithm = str(config.get("quant_method") or ""), str(_inner(config).get("quant_algo") or "")
    bits = config.get("bits") or config.get("w_bit")
    if method == "compressed-tensors":
        groups = config.get("config_groups") or {}
        weights = next((group.get("weights") or {} for group in groups.values() if isinstance(group, Mapping)), {})
        bits, kind = weights.get("num_bits"), weights.get("type")
        if kind == "float":
            return _FORMATS["fp8" if bits == 8 else "nvfp4"]
    if method == "bitsandbytes":
        return _FORMATS["bnb-8bit" if config.get("load_in_8bit") else "bnb-4bit"]
    if bits:
        group = float(config.get("group_size") or 128)
        overhead = (16 + float(bits)) / group if group > 0 else 0.0
        return WeightFormat(method or f"int{bits}", float(bits) + overhead)
    return named_format(f"{method} {algorithm}")  # modelopt is the method of FP8 and of NVFP4


def kv_cache_format(config: Mapping[str, Any] | None) -> str | None:
    """Return the format that `kv_cache_dtype=auto` has by a checkpoint's `quantization_config`, or None.

    See `resolve_kv_cache_dtype_string`, and `Attention` for compressed-tensors.
    """
    method = str((config or {}).get("quant_method") or "")
    if not config or not method.startswith(("modelopt", "compressed-tensors")):
        return None
    scheme = _inner(config).get("kv_cache_scheme") or config.get("kv_cache_scheme")
    if method == "compressed-tensors":
        return "fp8" if scheme else None
    chosen = scheme or _inner(config).get("kv_cache_quant_algo") or config.get("kv_cache_quant_algo")
    if isinstance(chosen, Mapping):
        known = chosen.get("type") == "float" and (chosen.get("num_bits") != 8 or chosen.get("dynamic") is False)  # vLLM has no other of 8 bits
        chosen = {8: "fp8", 4: "nvfp4"}.get(chosen.get("num_bits", 0)) if known else None
    return str(chosen).lower() if str(chosen).lower() in ("fp8", "nvfp4") else None


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ModelOpt's facts, which are one level down in its older files (`ModelOptQuantConfigBase.from_config` reads both)."""
    inner = config.get("quantization")
    return inner if isinstance(inner, Mapping) else config


def flag_format(flag: str | None) -> WeightFormat | None:
    """Return the format of the flag `quantization`. Raise UserError for an unknown one."""
    if flag is None:
        return None
    found = named_format(flag)
    if found is None and flag not in ("compressed-tensors", "quark", "torchao", "gguf"):
        raise UserError(f"vllm.quantization={flag}: not a known quantisation. Set one of {', '.join(NAMES)} or null.")
    return found
