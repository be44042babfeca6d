"""What a model is, as far as memory is concerned: from its `config.json`, or from the few facts that a table of models gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tune_gpu.errors import UserError
from tune_gpu.preflight.attention_kinds import latent_size, not_modelled, sliding_layers
from tune_gpu.preflight.latent_attention import LatentShapes
from tune_gpu.preflight.model_catalogue import fill_from_catalogue
from tune_gpu.preflight.parameter_count import Shapes, vision_params
from tune_gpu.preflight.weight_formats import WeightFormat, kv_cache_format, published_format, weight_format

_DTYPE_BYTES = {"float32": 4, "float": 4, "fp32": 4, "float16": 2, "half": 2, "fp16": 2, "bfloat16": 2, "bf16": 2}

_TIED = re.compile(r"gemma|opt$|gpt2|gpt_bigcode|bloom|falcon|cohere|starcoder2|mpt|smollm3|ernie4_5")
"""Families whose configs say nothing of `tie_word_embeddings` where output and input embeddings are one (the default of their classes)."""
_LARGEST = 2**40
"""Of a size or a number of layers."""
_MOST_PARAMETERS = 1e18


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
    latent: LatentShapes | None = None
    """Of multi-head latent attention: one latent vector of `head_dim` a token and layer, not split by tensor parallelism."""
    sliding_window: int | None = None
    sliding_layers: int = 0
    """Layers that attend to `sliding_window` tokens only; the others to all."""
    max_context: int | None = None
    default_context: int | None = None
    """What vLLM takes where no flag says."""
    dtype_bytes: int = 2
    format: WeightFormat | None = None
    """As the checkpoint's own `quantization_config` says; null for 16 or 32 bits."""
    kv_cache_dtype: str | None = None
    """What the checkpoint asks for where no flag does; null for the served width."""
    weights_bytes: float | None = None
    """Of the tensors in the checkpoint, where its files were read."""
    refusal: str | None = None
    guessed: tuple[str, ...] = ()
    """Shapes that were not given and are assumed from the family or the parameter count."""

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "hidden", "heads", "vocab"):
            self._check(name, getattr(self, name), above=0, below=_LARGEST)
        self._check("parameters", self.params, above=0, below=_MOST_PARAMETERS)
        self._check("vision parameters", self.vision_params, above=-1, below=_MOST_PARAMETERS)
        for name, value in (asdict(self.latent) if self.latent else {}).items():
            self._check(f"latent {name}", value, above=-1, below=_LARGEST)

    def _check(self, name: str, value: float, above: int, below: float) -> None:
        """What is no size of a model overflows somewhere in the arithmetic."""
        if not above < value < below:
            raise UserError(f"model {self.name}: {name}={_shown(value)}: allowed is above {above} and below {below:.0e}")

    @property
    def mla(self) -> bool:
        """Whether its attention is multi-head latent attention."""
        return self.latent is not None

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
        UserError: a fact without which nothing can be said (layers, heads, hidden size) is not there, or is no such number.
    """
    try:
        return _from_config(config, name)
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"model {name}: its config is not one of a decoder that is understood ({type(error).__name__}: {_shown(error)})") from error


def _from_config(config: Mapping[str, Any], name: str) -> ModelArchitecture:
    outer = dict(config)
    text = {**outer, **dict(outer.get("text_config") or outer.get("llm_config") or outer.get("language_config") or {})}
    facts = fill_from_catalogue(text, name)

    def size(*keys: str) -> int | None:
        return _size(facts, keys, name)

    layers, hidden = size("num_hidden_layers", "n_layer", "n_layers", "num_layers"), size("hidden_size", "n_embd", "d_model", "dim")
    if layers is None or hidden is None:
        missing = "num_hidden_layers" if layers is None else "hidden_size"
        raise UserError(f"model {name}: its config has no {missing}; needed are num_hidden_layers, hidden_size and the attention heads")
    heads = size("num_attention_heads", "n_head", "n_heads")
    head_dim = size("head_dim", "attention_head_dim") or (hidden // heads if heads else None)
    kv_heads = size("num_key_value_heads", "num_kv_heads", "n_head_kv") or (1 if facts.get("multi_query") else heads)
    if head_dim is None or kv_heads is None:
        raise UserError(f"model {name}: its config names neither num_attention_heads nor num_key_value_heads and head_dim")
    heads = heads or max(kv_heads, round(hidden / max(head_dim, 1)))
    latent = latent_size(facts)
    guessed = list(facts.get("_guessed", []))
    vocab = size("vocab_size", "padded_vocab_size") or _assume(guessed, "vocab", 128256)
    params_given = float(facts["params_b"]) * 1e9 if facts.get("params_b") else None
    tied = facts.get("tie_word_embeddings")
    if tied is None and _TIED.match(str(facts.get("model_type", ""))):
        tied = True
    if tied is None:
        tied = bool(_assume(guessed, "tied", 1)) if params_given is not None and params_given < 4.5e9 else False
    vision = vision_params(outer)
    shapes = Shapes(layers, hidden, heads, kv_heads, head_dim, vocab, bool(tied), latent is not None)
    experts = size("num_experts", "num_local_experts", "n_routed_experts") or 0
    moe_intermediate = size("moe_intermediate_size", "intermediate_size") or 0 if experts else 0
    intermediate = size("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    if intermediate is None and params_given is not None and not experts and "MoE" not in str(facts.get("attention", "")):
        intermediate = _assume(guessed, "intermediate", shapes.intermediate_for(params_given))
    intermediate = intermediate or _assume(guessed, "intermediate", moe_intermediate or 4 * hidden)
    params = params_given or shapes.params(facts, intermediate, experts, moe_intermediate) + vision
    window, sliding = sliding_layers(facts, layers)
    longest, assumed = _contexts(facts, size("max_position_embeddings", "n_positions", "max_sequence_length"), size("original_max_position_embeddings"))
    quantised = outer.get("quantization_config") or facts.get("quantization_config")
    return ModelArchitecture(
        name=name, layers=layers, kv_heads=1 if latent else kv_heads, head_dim=latent or head_dim, hidden=hidden, heads=heads,
        intermediate=intermediate, vocab=vocab, tied=bool(tied), params=params,
        experts_per_token=size("num_experts_per_tok", "moe_topk") or 8 if experts else 0, moe_intermediate=moe_intermediate,
        vision_params=vision, multimodal=vision > 0 or "vision_config" in outer or bool(facts.get("_multimodal")),
        latent=None if latent is None else LatentShapes.of(facts),
        sliding_window=window, sliding_layers=sliding, max_context=longest, default_context=assumed,
        dtype_bytes=_DTYPE_BYTES.get(str(facts.get("dtype") or facts.get("torch_dtype") or "bfloat16").removeprefix("torch."), 2),
        kv_cache_dtype=kv_cache_format(quantised), format=weight_format(quantised)
        or (None if "model_type" in outer else published_format(name)),
        refusal=not_modelled(outer, facts, name), guessed=tuple(guessed),
    )


def _contexts(facts: Mapping[str, Any], context: int | None, original: int | None) -> tuple[int | None, int | None]:
    """The longest that vLLM serves, and what it takes where no flag says (`_get_and_verify_max_len`): these ways of stretching the rotations
    leave the config's number as it was before, and LongRoPE is served unstretched unless a flag asks for more."""
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    if context is None:
        return None, None
    if kind in ("linear", "dynamic") and "gemma3" not in str(facts.get("model_type", "")):
        context = int(context * float(rope.get("factor") or 1.0))
    return context, min(original or context, context) if kind in ("longrope", "su") else context


def _shown(value: Any) -> str:
    """On one line."""
    return " ".join(str(value).split())[:80]


def _size(facts: Mapping[str, Any], keys: tuple[str, ...], name: str) -> int | None:
    """The first of these that is there, as a whole number; null for none, and for 0 (as good as not there). Some families write one per layer
    where they differ: that is not a number."""
    for key in keys:
        value = facts.get(key)
        if value is None or value == 0:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _LARGEST or value != int(value):
            raise UserError(f"model {name}: {key}={_shown(value)}: allowed is a whole number above 0")
        return int(value)
    return None


def read_architecture(folder: str | Path) -> ModelArchitecture:
    """From a model's folder (`config.json`, and its safetensors or GGUF header for the true size of the weights).

    Raises:
        UserError: no `config.json`, or one that is not JSON.
    """
    from tune_gpu.preflight.checkpoint import checkpoint_bytes

    path = Path(folder).expanduser() / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); allowed: a folder with a model's config.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: a model's config is a mapping of keys, not a {type(config).__name__}")
    model = from_config(config, Path(folder).name)
    size = checkpoint_bytes(Path(folder).expanduser())
    return model if size is None else model.with_weights(size)


def _assume(guessed: list[str], name: str, value: int) -> int:
    guessed.append(name)
    return value
