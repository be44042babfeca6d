"""The parts of vLLM's budget: weights, the peak of its profiling run, CUDA graphs, non-torch memory, and its KV blocks.

Every function returns bytes on one card. Sizes that are knobs (tokens of a batch, sequences, context) may be arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_gpu.config.rules import check_value, rule_of
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import GIB, MIB, Number, maximum, minimum, root_sum_square, where
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.expert_padding import padding
from tune_gpu.services.vllm.memory.model_runner import ModelRunner
from tune_gpu.services.vllm.memory.weight_formats import WeightFormat
from tune_gpu.services.vllm.options import read_name
from tune_gpu.services.vllm.settings import VllmSettings

_KV_BYTES = {  # of one value in the cache
    "fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "fp8_inc": 1.0, "float16": 2.0, "bfloat16": 2.0, "half": 2.0, "float32": 4.0,
    "nvfp4": 0.5 + 1 / 16, "nvfp4_4over6": 0.5 + 1 / 16,
}
_WIDE_DTYPES = ("float", "float32")


@dataclass(frozen=True)
class Estimate:
    """An estimate in bytes, and its standard deviation."""

    value: Number
    sigma: Number


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of an activation (and of an unquantised weight). `auto` serves float32 checkpoints in 16 bits."""
    check_value(rule_of(VllmSettings, "dtype"), "vllm.dtype", dtype)
    return 4 if dtype in _WIDE_DTYPES else 2


def weights(
    model: ModelArchitecture, quantisation: WeightFormat | None, width: int, tensor_parallel: int, rules: EngineRules | None = None, card: str = "",
) -> Estimate:
    """Return the weights on one card, from the checkpoint's tensors if they were read, else from the number of parameters.

    Linear layers take the bits of their format. Embeddings, the output layer and a vision tower stay in the served width. Experts may be
    padded to the tiles of a kernel (`expert_padding.py`).
    """
    stored = _format_of(model, quantisation)
    as_stored = _stored_weights(model, quantisation, width, tensor_parallel)
    if rules is None or stored is None or not model.experts_per_token:
        return as_stored
    share, doubt = padding(model, stored, rules, card, tensor_parallel)
    experts = max(model.params - _kept_params(model, stored), 0.0) * stored.bits / 8 / tensor_parallel
    return Estimate(as_stored.value + share * experts, root_sum_square(as_stored.sigma, doubt * experts))


def _format_of(model: ModelArchitecture, quantisation: WeightFormat | None) -> WeightFormat | None:
    """Return the flag's format, or the checkpoint's own, which knows more of the same."""
    same = quantisation is None or (model.format is not None and model.format.name == quantisation.name)
    return model.format if same else quantisation


def _kept_params(model: ModelArchitecture, stored: WeightFormat) -> float:
    """Return the number of parameters that stay in the served width."""
    kept = 0.0 if stored.embeddings_too else model.embedding_params + model.vision_params
    if (stored.experts_only and model.experts_per_token) or stored.attention_kept:
        kept += sum(2 * each.count * model.hidden * each.head_dim * (model.heads + each.kv_heads) for each in model.cache_layers)
    return kept


def _stored_weights(model: ModelArchitecture, quantisation: WeightFormat | None, width: int, tensor_parallel: int) -> Estimate:
    stored = _format_of(model, quantisation)
    rope = model.rotations * min(model.max_context or 0, 2**18) * min(model.head_dim, 256) * width  # the table of rotations, once per card
    if model.weights_bytes is not None and (quantisation is None or model.format is not None):
        scale = width / model.dtype_bytes if stored is None else 1.0
        return Estimate(model.weights_bytes * scale / tensor_parallel + rope, 0.01 * model.weights_bytes / tensor_parallel)
    if stored is None or stored.name == "16bit":
        size = model.params * width
        doubt = 0.01
    else:
        kept = _kept_params(model, stored)
        size = kept * width + max(model.params - kept, 0.0) * stored.bits / 8
        doubt = 0.03
    if "vocab" in model.guessed or "intermediate" in model.guessed:
        doubt += 0.01
    return Estimate(size / tensor_parallel + rope, doubt * size / tensor_parallel)


def activation(
    model: ModelArchitecture, rules: EngineRules, batch_tokens: Number, sequences: Number, width: int, tensor_parallel: int,
    chunked: Number = False, runner: ModelRunner | None = None,
) -> Estimate:
    """Return the peak of the profiling run: the larger of the forward pass and of sampling.

    Forward, over `batch_tokens` tokens, where a gated feed-forward layer is widest: gate and up (2 I), their product (I), and the hidden
    state three times (input, residual, output). I is divided among the cards, the hidden state is not. Experts: their two intermediate
    caches for each chosen expert. Sampling, over `sequences` rows of the vocabulary (whole on every card): see
    `ModelRunner.sampler_bytes_per_logit`. The hidden states of the batch still exist then.
    """
    hidden, rows = model.hidden, minimum(sequences, batch_tokens)
    feed_forward = 3 * model.intermediate / tensor_parallel + 3 * hidden
    if model.experts_per_token:
        inner = model.moe_intermediate / tensor_parallel
        feed_forward = model.experts_per_token * (max(2 * inner, hidden) + inner) + 3 * hidden
    attention = model.head_dim * (2 * model.heads + 2 * model.kv_heads) / tensor_parallel + 3 * hidden
    if model.mla:  # keys and values are unfolded for every head
        attention = model.heads * 3 * 192 / tensor_parallel + 3 * hidden
    forward = batch_tokens * max(feed_forward, attention) * width
    runner = runner or ModelRunner.of(rules, model)
    a_logit = runner.sampler_bytes_per_logit(width)
    sampling = rows * (model.vocab * a_logit) + (batch_tokens + rows) * hidden * width
    if rules.filters_in_a_kernel and not runner.second:
        sampling = sampling + 4.0 * minimum(rows, MULTIPROCESSORS) * model.vocab
    if rules.profiles_all_logits:
        sampling = batch_tokens * (model.vocab + hidden) * width
    if not rules.samples_after_a_chunk:
        sampling = where(chunked, 0 * sampling, sampling)
    if model.multimodal and not rules.v1:
        sampling = 0 * sampling  # V0 profiles with one sequence for each largest image: a handful of rows
    if model.pooling:  # no sampler: the output for each token, in 32 bits and normalised
        sampling = batch_tokens * hidden * (width + 8)
    doubt = 0.08 + (0.12 if "vocab" in model.guessed else 0.0) + (0.15 if "intermediate" in model.guessed else 0.0)
    peak = maximum(forward, sampling)
    return Estimate(peak, doubt * peak)


def with_encoder(peak: Estimate, model: ModelArchitecture, batch_tokens: Number, context: Number, width: int, limits: Mapping[str, int]) -> Estimate:
    """Return the larger of the encoder's own peak and the language model's activation beside the encoder's output.

    Of several encoders the one is profiled whose items have most tokens (`get_modality_with_max_tokens`).
    """
    encoders = [each for each in (model.encoder, model.audio_encoder) if each is not None]
    if not encoders:
        return Estimate(peak.value, peak.sigma + 0.5 * GIB)
    tokens, own, output, doubt = (0 * context for _ in range(4))
    for encoder in encoders:
        of_an_item = encoder.item_tokens(context, limits)
        chosen = of_an_item > tokens
        own = where(chosen, encoder.peak(batch_tokens, context, width, limits, model.hidden), own)
        output = where(chosen, encoder.output(batch_tokens, context, width, limits, model.hidden), output)
        doubt = where(chosen, encoder.doubt, doubt)
        tokens = maximum(tokens, of_an_item)
    sigma = root_sum_square(peak.sigma, doubt * own)
    if model.hears and model.audio_encoder is None and limits.get("audio") != 0:  # profiled where no prompt may have an image
        sigma = sigma + where(tokens > 0, 0.0, 0.5 * GIB)
    return Estimate(maximum(own, peak.value + output), sigma)


MULTIPROCESSORS = 128
"""Usual number of multiprocessors of a card. The kernel that filters logits takes a row of the vocabulary for each."""
COMPILE_PEAK = Estimate(1.0 * GIB, 0.35 * GIB)
"""Peak of a first `torch.compile`, which a start with its results on disk does not have.

Logs of 0.23 to 0.30 with a smaller activation than this deduct 0.5 GiB (Qwen2.5-1.5B), 1.02 (0.5B), 1.04 (7B), 1.15 (Llama 8B) and 1.25 GiB
(Qwen3-8B), whatever the size of the model.
"""


def with_compilation(peak: Estimate) -> Estimate:
    """Return the larger of the activation and the compiler's own peak, which is freed before the activation is allocated."""
    smaller = peak.value < COMPILE_PEAK.value
    return Estimate(where(smaller, COMPILE_PEAK.value, peak.value), where(smaller, maximum(COMPILE_PEAK.sigma, peak.sigma), peak.sigma))


def cuda_graphs(model: ModelArchitecture, rules: EngineRules, sequences: Number, width: int, tensor_parallel: int) -> Estimate:
    """Return the memory of captured CUDA graphs.

    V1: for each size a graph in as many pieces as there are layers plus one (`EngineRules.graph_piece_mib`), and since 0.11 whole graphs up
    to `sequences` tokens, which are estimated at 1 MiB at least. Sizes were 67 up to 512 tokens; since 0.12 they are 1, 2, 4, then every 8
    up to 256, then every 16, up to min(2 x sequences, 512). The buffers of the largest batch are counted once. V0: whole graphs of 35
    sizes, 7 MiB each.
    """
    if not rules.v1:
        graphs: Number = _graph_sizes(minimum(sequences, 256)) * 7.0 * MIB
        return Estimate(graphs, 0.7 * graphs)
    largest = minimum(2 * sequences, 512)
    sizes = _graph_sizes(largest) if rules.version >= (0, 12) else 67 + 0 * sequences
    graphs = sizes * (model.layers + 1) * rules.graph_piece_mib * MIB
    if rules.version >= (0, 11):
        buffers = largest * (3 * model.intermediate / tensor_parallel + 3 * model.hidden) * width
        graphs = graphs + _graph_sizes(minimum(sequences, 512)) * MIB + buffers
    return Estimate(graphs, 0.5 * graphs)


def _graph_sizes(largest: Number) -> Number:
    return minimum(3, largest) + minimum(largest, 256) // 8 + maximum(largest - 256, 0) // 16


def non_torch(rules: EngineRules, tensor_parallel: int, card: str, total_gib: float, shares_host_memory: bool = False) -> Estimate:
    """Return the memory of loaded kernels, workspaces of cuBLAS and attention, and with several cards the buffers of NCCL and of the
    all-reduce.

    With NVLink those buffers take a quarter of a GiB for each card (logs: 1.1 to 2.1 GiB on A100s; 0.95, 1.38, 1.63 and 1.84 GiB on two or
    four H100s, H200s and B300s), and little over PCIe (0.2 to 0.36 GiB in all on 2 to 16 cards of the RTX, L4 and L40S kinds), where since
    0.12 NCCL's part exists before the memory is first read. On a card that shares the host's memory, "free" is the host's, and the engine's
    own resident memory is deducted as well (a GB10: 1.5 to 2.2 GiB). V0 until 0.6.5 counts CUDA's own context as well (logs: 0.15 to 0.73
    GiB).
    """
    if rules.cpu:
        process = CPU_WARM_PROCESS_BYTES if rules.warm else CPU_PROCESS_BYTES
        return Estimate(process, CPU_PROCESS_SPREAD * process)
    if shares_host_memory:
        return Estimate(1.8 * GIB, 0.5 * GIB)
    kernels = Estimate(0.35 * GIB, 0.2 * GIB) if rules.context_is_counted else Estimate(0.1 * GIB, 0.1 * GIB)
    if rules.counts_all_consumed:  # logs of 0.27 and 0.28: 0.19 and 0.23 GiB beside weights and the runner's buffers
        kernels = Estimate(0.2 * GIB, 0.1 * GIB)
    if tensor_parallel == 1:
        return kernels
    over_pcie = (0.15 if rules.nccl_is_counted else 0.1) * GIB
    between = 0.25 * GIB * tensor_parallel if linked_by_nvlink(card, total_gib) else over_pcie
    return Estimate(kernels.value + between, kernels.sigma + 0.05 * GIB + 0.5 * between)


def linked_by_nvlink(card: str, total_gib: float) -> bool:
    """Return True if cards of this name are sold with NVLink, or by their memory if the name does not say."""
    if re.search(r"\b(A100|A800|H100|H800|H200|H20|B100|B200|B300|GB200|GB300|GH200)\b", card, re.IGNORECASE):
        return "pcie" not in card.lower()
    named = re.search(r"RTX|\bL4|\bL20|\bT4|\bA10|\bA[2-6]\d|V100|P100", card)
    return named is None and (38 < total_gib < 41 or 75 < total_gib < 94 or total_gib > 120)


CPU_PROCESS_BYTES = 780 * MIB
"""Resident memory of vLLM's CPU worker before the weights: Python with torch and vLLM (measured, vLLM 0.32)."""
CPU_WARM_PROCESS_BYTES = 650 * MIB
"""The same, forked from a fork server (measured on several machines: 580 to 890)."""
CPU_PROCESS_SPREAD = 0.18
"""Standard deviation between machines, as a part: pages of libraries and packed weights count as resident to different parts."""
CUDA_CONTEXT_BYTES = 0.35 * GIB
"""Memory of a process on a card before vLLM reads the free memory (V1 requires the whole share to be free then)."""
V0_CONTEXT_BYTES = 0.1 * GIB
"""The same of V0, which does not require the share to be free: it fails only if memory really runs out."""


def kv_value_bytes(kv_cache_dtype: str, width: int) -> float | None:
    """Return the bytes of one number in the cache, or None for a format whose layout is not modelled."""
    if kv_cache_dtype in ("auto", "", None):
        return float(width)
    return _KV_BYTES.get(kv_cache_dtype)


def engines(extra: Mapping[str, Any]) -> int:
    """Return how many data parallel engines a server has, each with its own cache; 1 for an invalid number, which vLLM refuses."""
    given = [value for name, value in extra.items() if str(name).replace("-", "_") == "data_parallel_size"]
    return int(given[-1]) if given and str(given[-1]).isdecimal() and int(given[-1]) > 0 else 1


def prefix_caching(extra: Mapping[str, Any]) -> bool | None:
    """Return the flag `enable_prefix_caching`, or None if it is not given."""
    given = None
    for spelling, value in ((read_name(str(name)), value) for name, value in extra.items() if value is not None):
        if spelling.option.replace("-", "_") == "enable_prefix_caching":
            given = value is not True if spelling.off else value is not False
    return given


def flag_refusal(extra: Mapping[str, Any], env: Mapping[str, str], experts: bool = False) -> str | None:
    """Return the flag or variable whose effect on memory is not modelled, with the reason, or None.

    Data parallel engines of a dense model are independent: each takes the same memory of its cards as a single engine. Experts are divided
    among all engines (`FusedMoEParallelConfig.make`).
    """
    flags = {}
    for spelling, value in ((read_name(str(name)), value) for name, value in extra.items() if value is not None):
        # A key below a dot counts as the whole: `speculative_config.method`
        flags[spelling.option.replace("-", "_")] = bool(spelling.path) or (value is not True if spelling.off else value)
    if experts and engines(extra) > 1:
        return f"data_parallel_size={flags['data_parallel_size']}: its division of the experts is not modelled"
    for name in ("pipeline_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size"):
        if flags.get(name) not in (None, 1, "1"):
            return f"{name}={flags[name]}: its division of the cache is not modelled"
    for name in ("speculative_config", "spec_method", "spec_model", "cpu_offload_gb", "offload_group_size", "enable_lora", "kv_transfer_config", "hf_overrides"):
        if flags.get(name):
            return f"{name}: its memory is not modelled"
    if flags.get("kv_cache_memory_bytes"):
        return "extra_args.kv_cache_memory_bytes: modelled as the setting kv_cache_memory_bytes only"
    if flags.get("num_gpu_blocks_override"):
        return "num_gpu_blocks_override: it sets the size of the cache, and vLLM no longer derives it from the share"
    if env.get("VLLM_CPU_KVCACHE_SPACE"):
        return "VLLM_CPU_KVCACHE_SPACE: it sets the size of the cache, and vLLM no longer derives it from the share"
    return None
