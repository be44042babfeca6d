"""What a model is, as far as memory is concerned: from its `config.json`, or from the few facts that a table of models gives."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_gpu.errors import UserError
from tune_gpu.preflight.model_catalogue import fill_from_catalogue
from tune_gpu.preflight.weight_formats import WeightFormat, weight_format

_STATE_SPACE_TYPES = re.compile(
    r"mamba|jamba|bamba|zamba|rwkv|falcon_?h1|nemotron_?h|granitemoehybrid|plamo2|lfm2|minimax|qwen3_next|qwen3_5|kimi_linear|recurrent|retnet|olmo_hybrid"
)
_STATE_SPACE_KEYS = ("mamba_d_state", "ssm_cfg", "hybrid_override_pattern", "linear_num_value_heads", "attn_layer_period", "full_attention_interval",
                     "linear_attn_config", "mamba_expand", "ssm_state_size")
_ENCODER_DECODER_TYPES = ("whisper", "bart", "t5", "mbart", "florence")
_DTYPE_BYTES = {"float32": 4, "float": 4, "fp32": 4, "float16": 2, "half": 2, "fp16": 2, "bfloat16": 2, "bf16": 2}


@dataclass(frozen=True)
class ModelArchitecture:
    """Shapes. `refusal` names what is not modelled: its memory is then not predicted, rather than predicted wrongly."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    heads: int
    intermediate: int
    vocab: int
    tied: bool
    params: float
    """All parameters, tied embeddings counted once, the vision tower included."""
    experts_per_token: int = 0
    """0 for a dense model."""
    moe_intermediate: int = 0
    vision_params: float = 0.0
    multimodal: bool = False
    mla: bool = False
    """Multi-head latent attention: one latent vector of `head_dim` a token and layer, not split by tensor parallelism."""
    sliding_window: int | None = None
    sliding_layers: int = 0
    """Layers that attend to `sliding_window` tokens only; the others to all."""
    max_context: int | None = None
    dtype_bytes: int = 2
    format: WeightFormat | None = None
    """As the checkpoint's own `quantization_config` says; null for 16 or 32 bits."""
    weights_bytes: float | None = None
    """Of the tensors in the checkpoint, where its files were read."""
    refusal: str | None = None
    guessed: tuple[str, ...] = ()
    """Shapes that were not given and are assumed from the family or the parameter count."""

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "hidden", "heads", "vocab"):
            if not getattr(self, name) > 0:
                raise UserError(f"model {self.name}: {name}={getattr(self, name)}: allowed is above 0")

    @property
    def embedding_params(self) -> float:
        """Input and output embeddings: never quantised."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def with_weights(self, weights_bytes: float) -> ModelArchitecture:
        """The same with the true size of its checkpoint."""
        return replace(self, weights_bytes=weights_bytes)


def from_config(config: Mapping[str, Any], name: str = "model") -> ModelArchitecture:
    """From a Hugging Face `config.json`, or from a table's entry with the same names (`params_b` and `attention` are understood too).

    Raises:
        UserError: a fact without which nothing can be said (layers, heads, hidden size) is not there.
    """
    outer = dict(config)
    text = {**outer, **dict(outer.get("text_config") or outer.get("llm_config") or outer.get("language_config") or {})}
    facts = fill_from_catalogue(text, name)

    def first(*keys: str, default: Any = None) -> Any:
        return next((facts[key] for key in keys if facts.get(key) is not None), default)

    layers, hidden = first("num_hidden_layers", "n_layer", "n_layers", "num_layers"), first("hidden_size", "n_embd", "d_model", "dim")
    if layers is None or hidden is None:
        missing = "num_hidden_layers" if layers is None else "hidden_size"
        raise UserError(f"model {name}: its config has no {missing}; needed are num_hidden_layers, hidden_size and the attention heads")
    heads = first("num_attention_heads", "n_head", "n_heads")
    head_dim = first("head_dim", "attention_head_dim") or (hidden // heads if heads else None)
    kv_heads = first("num_key_value_heads", "num_kv_heads", "n_head_kv") or (1 if facts.get("multi_query") else heads)
    if head_dim is None or kv_heads is None:
        raise UserError(f"model {name}: its config names neither num_attention_heads nor num_key_value_heads and head_dim")
    heads = heads or max(kv_heads, round(hidden / head_dim))
    latent = _latent_size(facts)
    guessed = list(facts.get("_guessed", []))
    vocab = first("vocab_size", "padded_vocab_size", default=0) or _assume(guessed, "vocab", 128256)
    params_given = float(facts["params_b"]) * 1e9 if facts.get("params_b") else None
    tied = first("tie_word_embeddings", default=None)
    if tied is None:
        tied = bool(_assume(guessed, "tied", 1)) if params_given is not None and params_given < 4.5e9 else False
    vision = _vision_params(outer)
    shapes = _Shapes(layers, hidden, heads, kv_heads, head_dim, vocab, tied, latent is not None)
    experts = int(first("num_experts", "num_local_experts", "n_routed_experts", default=0) or 0)
    moe_intermediate = int(first("moe_intermediate_size", "intermediate_size", default=0) or 0) if experts else 0
    intermediate = first("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    if intermediate is None and params_given is not None and not experts and "MoE" not in str(facts.get("attention", "")):
        intermediate = _assume(guessed, "intermediate", shapes.intermediate_for(params_given))
    intermediate = int(intermediate or _assume(guessed, "intermediate", moe_intermediate or 4 * hidden))
    params = params_given or shapes.params(facts, intermediate, experts, moe_intermediate) + vision
    window, sliding = _sliding(facts, layers)
    return ModelArchitecture(
        name=name, layers=layers, kv_heads=1 if latent else kv_heads, head_dim=latent or head_dim, hidden=hidden, heads=heads,
        intermediate=intermediate, vocab=vocab, tied=bool(tied), params=params,
        experts_per_token=int(first("num_experts_per_tok", "moe_topk", default=8) or 8) if experts else 0, moe_intermediate=moe_intermediate,
        vision_params=vision, multimodal=vision > 0 or "vision_config" in outer or bool(facts.get("_multimodal")), mla=latent is not None,
        sliding_window=window, sliding_layers=sliding, max_context=first("max_position_embeddings", "n_positions", "max_sequence_length"),
        dtype_bytes=_DTYPE_BYTES.get(str(first("dtype", "torch_dtype", default="bfloat16")).removeprefix("torch."), 2),
        format=weight_format(outer.get("quantization_config") or facts.get("quantization_config")),
        refusal=_refusal(outer, facts), guessed=tuple(guessed),
    )


def read_architecture(folder: str | Path) -> ModelArchitecture:
    """From a model's folder (`config.json`, and its safetensors or GGUF header for the true size of the weights).

    Raises:
        UserError: no `config.json`, or one that is not JSON.
    """
    from tune_gpu.preflight.checkpoint import checkpoint_bytes

    path = Path(folder).expanduser() / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); allowed: a folder with a model's config.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: a model's config is a mapping of keys, not a {type(config).__name__}")
    model = from_config(config, Path(folder).name)
    size = checkpoint_bytes(Path(folder).expanduser())
    return model if size is None else model.with_weights(size)


@dataclass(frozen=True)
class _Shapes:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    mla: bool

    @property
    def attention(self) -> float:
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def embedding(self) -> float:
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def intermediate_for(self, params: float) -> int:
        """The width of a gated feed-forward layer that explains the parameter count."""
        width = ((params - self.embedding) / self.layers - self.attention) / (3 * self.hidden)
        return max(self.hidden, round(width / 64) * 64)

    def params(self, facts: Mapping[str, Any], intermediate: int, experts: int, moe_intermediate: int) -> float:
        """Of a decoder with gated feed-forward layers; with experts where there are any."""
        matrices = 2 if str(facts.get("model_type", "")) in ("opt", "gpt2", "falcon", "gpt_bigcode", "phi", "bloom", "gpt_neox") else 3
        dense = matrices * self.hidden * intermediate
        if not experts:
            return self.embedding + self.layers * (self._attention(facts) + dense + 2 * self.hidden)
        dense_layers = int(facts.get("first_k_dense_replace") or 0)
        shared = int(facts.get("n_shared_experts") or 0) * moe_intermediate + int(facts.get("shared_expert_intermediate_size") or 0)
        expert_layer = 3 * self.hidden * (experts * moe_intermediate + shared) + experts * self.hidden
        moe_layers = self.layers - dense_layers
        return self.embedding + self.layers * (self._attention(facts) + 2 * self.hidden) + dense_layers * dense + moe_layers * expert_layer

    def _attention(self, facts: Mapping[str, Any]) -> float:
        if not self.mla:
            return self.attention
        rank, rope = int(facts.get("kv_lora_rank") or 512), int(facts.get("qk_rope_head_dim") or 64)
        nope, value, query_rank = int(facts.get("qk_nope_head_dim") or 128), int(facts.get("v_head_dim") or 128), facts.get("q_lora_rank")
        query = self.heads * (nope + rope)
        queries = (self.hidden + query) * int(query_rank) if query_rank else self.hidden * query
        return queries + self.hidden * (rank + rope) + rank * self.heads * (nope + value) + self.heads * value * self.hidden


def _assume(guessed: list[str], name: str, value: int) -> int:
    guessed.append(name)
    return value


def _latent_size(facts: Mapping[str, Any]) -> int | None:
    if facts.get("kv_lora_rank"):
        return int(facts["kv_lora_rank"]) + int(facts.get("qk_rope_head_dim") or 64)
    if re.search(r"\bMLA\b|latent", str(facts.get("attention", "")), re.IGNORECASE):
        return int(facts.get("head_dim") or 576)
    return None


def _sliding(facts: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """The window and how many layers have it. A table may say `sliding 5:1`."""
    window = facts.get("sliding_window")
    ratio = re.search(r"sliding\D*(\d+)\s*:\s*(\d+)", str(facts.get("attention", "")))
    if ratio:
        part, rest = int(ratio[1]), int(ratio[2])
        return window or 4096, layers - math.ceil(layers * rest / (part + rest)) if layers % (part + rest) == 0 else layers - layers // (part + rest)
    kinds = facts.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return (window, sum("sliding" in str(kind) for kind in kinds)) if window else (None, 0)
    if not window or facts.get("use_sliding_window") is False:
        return None, 0
    pattern = facts.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        return window, sum(pattern[index % len(pattern)] == "L" for index in range(layers))
    if isinstance(pattern, int) and pattern > 1:
        return window, layers - layers // pattern
    if str(facts.get("model_type", "")).startswith("gemma2"):
        return window, layers - layers // 2
    return window, layers


def _vision_params(outer: Mapping[str, Any]) -> float:
    vision = outer.get("vision_config")
    if not isinstance(vision, Mapping):
        return 0.0
    depth = vision.get("depth") or vision.get("num_hidden_layers") or 0
    width = vision.get("embed_dim") if vision.get("mlp_ratio") else None
    width = width or vision.get("hidden_size") or vision.get("embed_dim") or 0
    inner = vision.get("intermediate_size") or width * float(vision.get("mlp_ratio") or 4)
    return float(depth) * (4 * width * width + (3 if vision.get("hidden_act") == "silu" else 2) * width * inner)


def _refusal(outer: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    kind, attention = str(facts.get("model_type", "")).lower(), str(facts.get("attention", "")).lower()
    if outer.get("is_encoder_decoder") or any(kind.startswith(name) for name in _ENCODER_DECODER_TYPES):
        return "an encoder-decoder model: its cross-attention cache is not modelled"
    if "cross" in attention or facts.get("cross_attention_layers"):
        return "cross-attention layers: their cache is not modelled"
    linear = [str(item) for item in facts.get("layer_types") or [] if re.search(r"linear|mamba|recurrent|conv", str(item))]
    states = linear or _STATE_SPACE_TYPES.search(kind) or any(facts.get(key) for key in _STATE_SPACE_KEYS)
    if states or re.search(r"linear|mamba|ssm|state.space|delta|recurrent", attention) or ("hybrid" in attention and "sliding" not in attention):
        return "a hybrid of attention and recurrent (state-space or linear-attention) layers: the size of its states is not modelled"
    if facts.get("attention_chunk_size") or "chunked" in attention or "local" in attention:
        return "chunked local attention: its cache is not modelled"
    if str(kind) in ("deepseek_v32", "deepseek_v4", "deepseek_v41", "glm_moe_dsa") or "sparse" in attention:
        return "sparse attention with an indexer cache: not modelled"
    if kind.startswith("gemma3n") or kind.startswith("gemma4"):
        return "layers that share or differ in the shape of their KV cache: not modelled"
    return None
