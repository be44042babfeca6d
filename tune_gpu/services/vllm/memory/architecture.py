"""The shapes of a model that decide on its memory, from its `config.json` or from the few facts in a table of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.services.vllm.memory.attention_kinds import is_recurrent, latent_size, not_modelled, sliding_layers
from tune_gpu.services.vllm.memory.audio_encoder import AudioEncoder
from tune_gpu.services.vllm.memory.cache_layers import AttentionLayers, LayerMix, StateLayers, layer_mix, state_layers
from tune_gpu.services.vllm.memory.config_classes import NOT_GENERATING, TextPart, text_part
from tune_gpu.services.vllm.memory.config_sizes import (
    LARGEST,
    AttentionSizes,
    NotModelled,
    attention_sizes,
    contexts,
    has_mrope,
    read_size,
    shown,
)
from tune_gpu.services.vllm.memory.latent_attention import LatentShapes
from tune_gpu.services.vllm.memory.model_catalogue import fill_from_catalogue
from tune_gpu.services.vllm.memory.parameter_count import Shapes, projector_params, tower_params
from tune_gpu.services.vllm.memory.unlike_layers import unlike_layers
from tune_gpu.services.vllm.memory.vision_encoder import VisionEncoder
from tune_gpu.services.vllm.memory.weight_formats import WeightFormat, kv_cache_format, published_format, weight_format

_DTYPE_BYTES = {"float32": 4, "float": 4, "fp32": 4, "float16": 2, "half": 2, "fp16": 2, "bfloat16": 2, "bf16": 2}

_TIED = re.compile(r"gemma|opt$|gpt2|gpt_bigcode|bloom|falcon|cohere|starcoder2|mpt|smollm3|ernie4_5")
"""Families whose output and input embeddings are one by default, and whose configs do not set `tie_word_embeddings`."""
_MOST_PARAMETERS = 1e18
_ENCODERS = ("bert", "roberta", "xlm-roberta", "modernbert")
"""Types that vLLM serves as embedding or classification models without a KV cache (`AttentionType.ENCODER_ONLY`)."""


@dataclass(frozen=True)
class ModelArchitecture:
    """Shapes of a model. `refusal` names what is not modelled: then its memory is not predicted at all."""

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
    """Number of parameters, with tied embeddings counted once, and with the vision tower."""
    experts_per_token: int = 0
    """0 for a dense model."""
    moe_intermediate: int = 0
    vision_params: float = 0.0
    multimodal: bool = False
    latent: LatentShapes | None = None
    """Multi-head latent attention: one latent vector of `head_dim` per token and layer, not split by tensor parallelism."""
    sliding_window: int | None = None
    sliding_layers: int = 0
    """Number of layers that attend to `sliding_window` tokens only. The others attend to all."""
    unlike: tuple[AttentionLayers, ...] = ()
    """Layers with a cache, if not all have one of the same shape."""
    states: StateLayers | None = None
    """Layers that keep a state instead of keys and values."""
    max_context: int | None = None
    default_context: int | None = None
    """vLLM's default context."""
    dtype_bytes: int = 2
    format: WeightFormat | None = None
    """Format in the checkpoint's own `quantization_config`; None for 16 or 32 bits."""
    kv_cache_dtype: str | None = None
    """Default of the checkpoint; None for the served width."""
    weights_bytes: float | None = None
    """Bytes of the tensors in the checkpoint, if its files were read."""
    refusal: str | None = None
    rotations: int = 1
    """Size of the table of rotations in multiples of the context: M-RoPE has four times as many positions."""
    read_from: str = field(default="", compare=False)
    """Where the shapes are from: a folder, or the name of a known model."""
    guessed: tuple[str, ...] = ()
    """Shapes that were not given, and are assumed from the family or the parameter count."""
    kind: str = ""
    """The `model_type` of its text part; empty if only a table's facts are known."""
    encoder: VisionEncoder | None = None
    """Its image encoder; None if it has none, or one whose largest image is not known."""
    audio_encoder: AudioEncoder | None = None
    """Its audio encoder; None if it has none, or one whose longest recording is not known."""
    hears: bool = False
    """True if it has an audio encoder."""
    architectures: tuple[str, ...] = field(default=(), compare=False)
    """Names of its class in `config.json`."""
    pooling: bool = False
    """True if it returns embeddings or scores, not text."""
    cacheless: bool = False
    """True for an encoder, which keeps no keys and values."""

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads", "head_dim", "hidden", "heads", "vocab"):
            self._check(name, getattr(self, name), above=0, below=LARGEST)
        self._check("parameters", self.params, above=0, below=_MOST_PARAMETERS)
        self._check("vision parameters", self.vision_params, above=-1, below=_MOST_PARAMETERS)
        for name, value in (asdict(self.latent) if self.latent else {}).items():
            self._check(f"latent {name}", value, above=-1, below=LARGEST)

    def _check(self, name: str, value: float, above: int, below: float) -> None:
        """Raise UserError for a size that no model has, which would overflow somewhere in the arithmetic."""
        if not above < value < below:
            raise UserError(f"model {self.name}: {name}={shown(value)}: not a size of a model. It must be above {above} and below {below:.0e}.")

    @property
    def mla(self) -> bool:
        """Return True if its attention is multi-head latent attention."""
        return self.latent is not None

    @property
    def sized(self) -> bool:
        """Return True if the number of parameters is known (also where the cache is not modelled)."""
        return self.params > 1.0

    @property
    def cache_layers(self) -> tuple[AttentionLayers, ...]:
        """Return the layers that keep keys and values, by the shape of these."""
        if self.unlike:
            return self.unlike
        full = AttentionLayers(self.layers - self.sliding_layers, self.kv_heads, self.head_dim)
        sliding = AttentionLayers(self.sliding_layers, self.kv_heads, self.head_dim, self.sliding_window)
        return tuple(layers for layers in (full, sliding) if layers.count)

    @property
    def embedding_params(self) -> float:
        """Return the number of parameters of input and output embeddings, which are never quantised."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @classmethod
    def unknown(cls, name: str, reason: str) -> ModelArchitecture:
        """Return an architecture with unknown shapes: None of its numbers is used."""
        return cls(name, 1, 1, 1, 1, 1, 1, 1, False, 1.0, refusal=reason)

    def with_weights(self, weights_bytes: float) -> ModelArchitecture:
        """Return the same architecture with the true size of its checkpoint."""
        return replace(self, weights_bytes=weights_bytes)


def from_config(config: Mapping[str, Any], name: str = "model") -> ModelArchitecture:
    """Read a Hugging Face `config.json`, or an entry of a table with the same names (`params_b` and `attention` are understood too).

    A fact that neither the config nor its class states, or that differs by layer, is not modelled; then `refusal` has the reason.

    Raises:
        UserError: a size that is not a number of a model.
    """
    try:
        part = text_part(config)
        facts = fill_from_catalogue(part.facts, name)
        reason = not_modelled(config, facts, name)
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError) as error:
        return ModelArchitecture.unknown(name, _not_understood(error))
    try:
        model = _architecture(config, part, facts, name)
        if (reason or part.refusal) == NOT_GENERATING and model.kind in _ENCODERS:
            return replace(model, pooling=True, cacheless=True, tied=True)
        return replace(model, refusal=reason or part.refusal)
    except NotModelled as error:
        return ModelArchitecture.unknown(name, reason or (part.refusal if not part.facts else None) or str(error))
    except UserError:
        raise  # a ValueError, too
    except (TypeError, AttributeError, KeyError, ValueError, ArithmeticError) as error:
        return ModelArchitecture.unknown(name, reason or _not_understood(error))


def _architectures(config: Mapping[str, Any]) -> tuple[str, ...]:
    given = config.get("architectures")
    return tuple(str(name) for name in given) if isinstance(given, list) else ()


def _not_understood(error: Exception) -> str:
    return f"its config is not one of a decoder that is understood ({type(error).__name__}: {shown(error)})"


@dataclass(frozen=True)
class _Weights:
    """The components of the number of parameters."""

    intermediate: int
    vocab: int
    tied: bool
    params: float
    experts: int
    moe_intermediate: int
    guessed: list[str] = field(default_factory=list)


def _architecture(config: Mapping[str, Any], part: TextPart, facts: Mapping[str, Any], name: str) -> ModelArchitecture:
    sizes, latent = attention_sizes(facts, name), latent_size(facts)
    towers = tower_params(part.vision) + tower_params(part.audio)
    if towers:
        towers += projector_params(part.vision, sizes.hidden) + projector_params(part.audio, sizes.hidden)
    mix, states = None, None
    if is_recurrent(facts):
        mix = layer_mix(facts, sizes.layers)
        states = state_layers(facts, sizes.hidden, mix.states, name) if mix.states else None
    found = _weights(facts, sizes, name, towers, mix, states)
    window, sliding = sliding_layers(facts, sizes.layers)
    unlike = unlike_layers(facts, sizes, window, name)
    if mix is not None:
        unlike = (AttentionLayers(mix.attention, 1 if latent else sizes.kv_heads, latent or sizes.head_dim),) if mix.attention else ()
        window, sliding = None, 0
    longest, assumed = contexts(facts, name)
    encoder = VisionEncoder.of(part.vision, config)
    quantised = config.get("quantization_config") or facts.get("quantization_config")
    chosen = read_size(facts, name, "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k")
    return ModelArchitecture(
        name=name, layers=sizes.layers, kv_heads=1 if latent else sizes.kv_heads, head_dim=latent or sizes.head_dim, hidden=sizes.hidden,
        heads=sizes.heads, intermediate=found.intermediate, vocab=found.vocab, tied=found.tied, params=found.params,
        experts_per_token=chosen or 8 if found.experts else 0, moe_intermediate=found.moe_intermediate,
        vision_params=towers, multimodal=towers > 0 or part.vision is not None or "vision_config" in config or bool(facts.get("_multimodal")),
        latent=None if latent is None else LatentShapes.of(facts),
        sliding_window=window, sliding_layers=sliding, unlike=unlike, states=states, max_context=longest, default_context=assumed,
        rotations=4 if has_mrope(facts) else 1,
        dtype_bytes=_DTYPE_BYTES.get(str(facts.get("dtype") or facts.get("torch_dtype") or "bfloat16").removeprefix("torch."), 2),
        kv_cache_dtype=kv_cache_format(quantised), format=weight_format(quantised, sizes.layers)
        or (None if "model_type" in config else published_format(name)), guessed=tuple(found.guessed), kind=str(facts.get("model_type") or ""),
        encoder=encoder, audio_encoder=AudioEncoder.of(part.audio, config) if part.vision is None or encoder else None, hears=part.audio is not None,
        architectures=_architectures(config),
    )  # fmt: skip


def _weights(
    facts: Mapping[str, Any], sizes: AttentionSizes, name: str, towers: float, mix: LayerMix | None = None, states: StateLayers | None = None,
) -> _Weights:
    guessed = list(facts.get("_guessed", []))
    vocab = read_size(facts, name, "vocab_size", "padded_vocab_size") or _assume(guessed, "vocab", 128256)
    given = float(facts["params_b"]) * 1e9 if facts.get("params_b") else None
    tied = _tied(facts, given, guessed)
    shapes = Shapes(sizes.layers, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_dim, vocab, tied, latent_size(facts) is not None)
    experts = read_size(facts, name, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts") or 0
    moe_intermediate = read_size(facts, name, "moe_intermediate_size", "intermediate_size") or 0 if experts else 0
    intermediate = read_size(facts, name, "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    if intermediate is None and given is not None and not experts and "MoE" not in str(facts.get("attention", "")):
        intermediate = _assume(guessed, "intermediate", shapes.intermediate_for(given))
    intermediate = intermediate or _assume(guessed, "intermediate", moe_intermediate or 4 * sizes.hidden)
    params = given or shapes.params(facts, intermediate, experts, moe_intermediate, mix, states) + towers
    return _Weights(intermediate, vocab, tied, params, experts, moe_intermediate, guessed)


def _tied(facts: Mapping[str, Any], params: float | None, guessed: list[str]) -> bool:
    tied = facts.get("tie_word_embeddings")
    if tied is None and _TIED.match(str(facts.get("model_type", ""))):
        return True
    if tied is None:
        return bool(_assume(guessed, "tied", 1)) if params is not None and params < 4.5e9 else False
    return bool(tied)


def read_architecture(folder: str | Path) -> ModelArchitecture:
    """Read a model's folder: `config.json`, and its safetensors or GGUF header for the true size of the weights.

    Raises:
        UserError: no `config.json`, or one that is not JSON.
    """
    from tune_gpu.services.vllm.memory.checkpoint import checkpoint_bytes
    from tune_gpu.services.vllm.memory.pooling_folder import authors_limit

    path = Path(folder).expanduser() / "config.json"
    config = outside_files.read_json(path, outside_files.MODEL)
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a model's config (a {type(config).__name__}, not a mapping). Download the model again.")
    model = from_config(config, Path(folder).name)
    if (longest := authors_limit(Path(folder).expanduser())) is not None:
        model = replace(model, max_context=longest, default_context=longest)
    if not model.sized or not text_part(config).whole:
        return model
    size = checkpoint_bytes(Path(folder).expanduser())
    return model if size is None else model.with_weights(size)


def _assume(guessed: list[str], name: str, value: int) -> int:
    guessed.append(name)
    return value
