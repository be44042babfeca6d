"""vLLM's budget for one engine: the share that it requests, what is deducted, and the KV cache that remains.

GPU (`v1/worker/gpu_worker.py`, `worker/worker.py`): KV = ceil(total x share) - weights - non-torch - activation peak [- graphs since 0.21],
and the share must be free when it starts. CPU (`v1/worker/cpu_worker.py`): KV = ceil(total x share) - resident memory of the worker, with
the NUMA node's total. The share must be available at the start, and the KV cache when it is sized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.rules import bounds_of
from tune_gpu.services.memory_values import DeviceMemory
from tune_gpu.services.vllm.memory import parts
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import GIB, MIB, Number, both, ceil_div, is_array, maximum, minimum, root_sum_square, where
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.engine_rules import DEFAULT_VERSION, EngineRules
from tune_gpu.services.vllm.memory.kv_layout import KvLayout
from tune_gpu.services.vllm.memory.model_runner import ModelRunner
from tune_gpu.services.vllm.memory.pooling import as_served
from tune_gpu.services.vllm.memory.vision_encoder import limits_of
from tune_gpu.services.vllm.memory.weight_formats import flag_format
from tune_gpu.services.vllm.settings import VllmSettings

NOT_MODELLED_SHARE = 0.005
"""Standard deviation of everything that no part models, as a share of the requested memory."""
DOUBT_FACTOR = 2.4
"""Half the width of the range, in standard deviations. With these two numbers the range holds in nine of ten logged starts when each model family,
or each source of logs, is left out of the fit in turn (`python -m tests.benchmarks.preflight` prints it). Two deviations held in 51 of 59."""
MOST_CERTAIN_SHARE = 0.95
"""At this share of the card or more no start is certain: kernels are tuned and the sampler is warmed up after the cache has taken its memory."""


@dataclass(frozen=True)
class Knobs:
    """The sizes that a space varies; each a number or an array."""

    share: Number
    cache_bytes: Number | None
    """The size of the KV cache as it is set; None if the share decides it."""
    context: Number
    sequences: Number
    batch_tokens: Number
    block_size: Number
    chunked: Number


@dataclass(frozen=True)
class MemoryBudget:
    """The memory of an engine: what it requests, what is deducted, and what is left for the KV cache. Everything is in bytes."""

    requested: Number
    weights: Number
    activation: Number
    graphs: Number
    non_torch: Number
    kv: Number
    blocks: Number
    tokens: Number
    request_blocks: Number
    block_bytes: Number
    needed: Number
    """Memory of one sequence of the whole context (and of the block that is set aside)."""
    doubt: Number
    """Half the width of the range of what is left for the cache: that of the deductions, or 0 for a cache whose size is set. The range holds in
    nine of ten starts of kinds that it was not fitted to."""
    total_doubt: Number
    """Half the width of the range of `requested`: 0 for a share, which is exact."""
    own_context: float
    """Memory on the card that is held before the free memory is read."""
    layout: KvLayout
    rules: EngineRules
    knobs: Knobs
    calibrated: bool


def resolve_knobs(settings: VllmSettings, model: ModelArchitecture, device: DeviceMemory, rules: EngineRules) -> Knobs:
    """Replace flags that are None by vLLM's own defaults for this card and version. Values may be arrays.

    Raises:
        UserError: a share outside (0, 1], a context longer than the model's, or a size below 1.
    """
    share, context = settings.gpu_memory_utilization, settings.max_model_len
    if isinstance(context, str):
        raise UserError(f"vllm.max_model_len={context}: its memory is not modelled. Set a whole number.")
    for name in ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "tensor_parallel_size"):
        if getattr(settings, name) is not None:
            _check_range(f"vllm.{name}", getattr(settings, name), bounds_of(VllmSettings, name))
    if context is None:
        context = model.default_context or model.max_context
        if context is None:
            raise UserError(f"model {model.name}: its config has no max_position_embeddings. Set vllm.max_model_len.")
    elif model.max_context is not None and not settings.env.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN"):
        _check_range("vllm.max_model_len", context, Bounds(above=0, most=model.max_context), " (the model's own context)")
    total_gib, world = device.total_mib / 1024, settings.tensor_parallel_size
    sequences = settings.max_num_seqs
    sequences_given = sequences is not None
    if sequences is None:
        sequences = rules.default_max_num_seqs(total_gib, device.name, world, device.shares_host_memory)
    batch: Number = settings.max_num_batched_tokens
    chunked: Number = settings.enable_chunked_prefill
    if chunked is None:
        chunked = False if model.cacheless else rules.chunked_prefill_default(context, model.multimodal or model.mla)
    if batch is None:
        chunk = rules.default_batch(total_gib, device.name, world, device.shares_host_memory)
        batch = where(chunked, chunk, maximum(context, 2048 if not rules.v1 else chunk))
        if model.multimodal and not rules.v1:
            batch = maximum(batch, 5120)
        if rules.v1:
            batch = minimum(batch, sequences * context)
    if not sequences_given:
        sequences = minimum(sequences, batch)
    block_size: Number = settings.block_size if settings.block_size is not None else (16 if model.mla and rules.cpu else rules.block_size)
    return Knobs(share, settings.kv_cache_memory_bytes, context, sequences, batch, block_size, chunked)


def estimate_memory(
    settings: VllmSettings, device: DeviceMemory, model: ModelArchitecture, calibration: Calibration | None = None,
    version: str | None = None, v1: bool | None = None, warm: bool = False,
) -> MemoryBudget:
    """Return the memory budget of one engine, or of many at once that differ only in their knobs.

    `warm` is for the CPU: the engine is forked from a process that has imported vLLM.
    """
    model = as_served(model, {"runner": settings.runner} | settings.extra_args)
    rules = EngineRules.of(version or (calibration.vllm_version if calibration else None) or DEFAULT_VERSION, cpu=device.kind == "cpu", v1=v1, warm=warm)
    knobs = resolve_knobs(settings, model, device, rules)
    width, cards = parts.dtype_bytes(settings.dtype), settings.tensor_parallel_size
    weights = parts.weights(model, flag_format(settings.quantization), width, cards, rules, device.name)
    if model.latent is not None:
        form = flag_format(settings.quantization) or model.format
        stored = width if form is None or form.experts_only else form.bits / 8
        beside = model.latent.kept_beside(rules, model.layers, model.hidden, model.heads, stored, width, cards)
        weights = parts.Estimate(weights.value + beside, weights.sigma)
    peak, graphs, non_torch = _overhead(settings, device, model, rules, knobs, width)
    asked = model.kv_cache_dtype if rules.checkpoint_sets_the_cache and settings.kv_cache_dtype == "auto" else None
    kv_bytes = parts.kv_value_bytes(asked or settings.kv_cache_dtype, width)
    assert kv_bytes is not None  # refused before
    layout = KvLayout.of(model, rules, kv_bytes, cards, width, parts.prefix_caching(settings.extra_args))
    knobs = replace(knobs, block_size=layout.block_tokens(knobs.block_size))
    requested = _ceil(device.total_mib * MIB * knobs.share)
    beside = 0.0 if rules.cpu else NOT_MODELLED_SHARE * requested
    doubt = DOUBT_FACTOR * root_sum_square(weights.sigma, peak.sigma, graphs.sigma, non_torch.sigma, beside)
    weight, overhead = weights.value, non_torch.value
    token_bytes = layout.bytes_per_token
    if calibration is not None:
        weight = calibration.weights_mib * MIB
        token_bytes = calibration.token_bytes or token_bytes
        modelled = _modelled_at(calibration, settings, device, model, rules, width)
        # The measurement, shifted by what the model predicts for the change of these other flags. With the same flags nothing changes.
        overhead = calibration.overhead_mib * MIB - modelled + non_torch.value
        moved = abs(peak.value + graphs.value + non_torch.value - modelled)
        doubt = 2 * (calibration.repeatability_mib * MIB + 0.15 * moved)
    taken = weight + peak.value + graphs.value + overhead
    if model.cacheless:  # vLLM does not compare its share with what it takes, but both must be free
        requested = maximum(requested, taken)
    kv, total_doubt = requested - taken, 0.0
    if knobs.cache_bytes is not None:  # the share must be free on a card all the same (`request_memory`), on the CPU it is not read
        needs = taken + knobs.cache_bytes
        requested = needs if rules.cpu else maximum(requested, needs)
        kv, doubt, total_doubt = knobs.cache_bytes + 0 * needs, 0 * doubt, where(requested > needs, 0.0, doubt)
    block_bytes = token_bytes * knobs.block_size
    blocks = maximum(kv // block_bytes, 0)
    request_blocks = layout.blocks_of_a_request(knobs.context, knobs.batch_tokens, knobs.block_size)
    tokens = tokens_of(blocks, layout, rules, knobs)
    reserved = 1 if rules.null_block else 0
    if model.cacheless:
        blocks, tokens, request_blocks, block_bytes, reserved = 0 * blocks, 0 * tokens, 1, 0.0, 0
    return MemoryBudget(
        requested=requested, weights=weight, activation=peak.value, graphs=graphs.value, non_torch=overhead, kv=kv, blocks=blocks, tokens=tokens,
        request_blocks=request_blocks, block_bytes=block_bytes, needed=(request_blocks + reserved) * block_bytes, doubt=doubt, total_doubt=total_doubt,
        own_context=0.0 if rules.cpu else parts.CUDA_CONTEXT_BYTES if rules.v1 else parts.V0_CONTEXT_BYTES, layout=layout, rules=rules, knobs=knobs, calibrated=calibration is not None,
    )


def tokens_of(blocks: Number, layout: KvLayout, rules: EngineRules, knobs: Knobs) -> Number:
    """Return the tokens of the cache as vLLM's log counts them.

    With one block table they are blocks x block size. With several they were the blocks of each table until 0.20, and are concurrency x
    context since 0.21 (`get_kv_cache_capacity`).
    """
    if layout.plain:
        return blocks * knobs.block_size
    if rules.group_aware:
        return blocks / layout.blocks_of_a_request(knobs.context, knobs.batch_tokens, knobs.block_size) * knobs.context
    return blocks // layout.groups * knobs.block_size


def _overhead(
    settings: VllmSettings, device: DeviceMemory, model: ModelArchitecture, rules: EngineRules, knobs: Knobs, width: int,
) -> tuple[parts.Estimate, parts.Estimate, parts.Estimate]:
    """Return activation, graphs that are deducted from the share, and non-torch memory."""
    nothing, cards = parts.Estimate(0.0, 0.0), settings.tensor_parallel_size
    runner = ModelRunner.of(rules, model, settings.env, settings.quantization is not None)
    peak = parts.activation(model, rules, knobs.batch_tokens, knobs.sequences, width, cards, knobs.chunked, runner)
    if model.multimodal and rules.v1 and runner.profiles_the_encoder:
        peak = parts.with_encoder(peak, model, knobs.batch_tokens, knobs.context, width, limits_of(settings.extra_args))
    elif model.multimodal:
        peak = parts.Estimate(peak.value, peak.sigma + 0.5 * GIB)
    if rules.compiles_in_profile and not settings.enforce_eager:
        peak = parts.with_compilation(peak)
    if rules.cpu and settings.enforce_eager:
        peak = nothing  # without compilation the CPU worker runs no profiling pass (`warming_up_model`)
    elif rules.cpu:  # only part of its memory stays with the process
        peak = parts.Estimate(peak.value, 0.5 * peak.value)
    graphs = nothing
    if runner.graphs_are_estimated and not settings.enforce_eager and not rules.cpu:
        graphs = parts.cuda_graphs(model, rules, knobs.sequences, width, cards)
    non_torch = parts.non_torch(rules, cards, device.name, device.total_mib / 1024, device.shares_host_memory)
    if rules.context_is_counted:
        non_torch = parts.Estimate(non_torch.value + device.used_mib * MIB, non_torch.sigma)
    if rules.counts_all_consumed and not model.pooling:
        non_torch = parts.Estimate(non_torch.value + runner.kept_bytes(knobs.sequences, model.vocab), non_torch.sigma)
    return peak, graphs, non_torch


def _modelled_at(
    calibration: Calibration, settings: VllmSettings, device: DeviceMemory, model: ModelArchitecture, rules: EngineRules, width: int,
) -> Number:
    """Return the modelled overhead under the flags of the measured start."""
    flags: dict[str, Any] = dict(calibration.flags)
    measured = replace(settings, gpu_memory_utilization=0.5, **flags)
    knobs = resolve_knobs(measured, model, device, rules)
    return sum(part.value for part in _overhead(measured, device, model, rules, knobs, width))


def graphs_after(budget: MemoryBudget, settings: VllmSettings, model: ModelArchitecture) -> Number:
    """Return the memory of CUDA graphs that are captured after the KV cache exists, and that must be free beyond the share."""
    return _late_graphs(budget, settings, model).value


def after_the_cache(budget: MemoryBudget, settings: VllmSettings, model: ModelArchitecture) -> Number:
    """Return the memory that must be free beyond the share for a start to be certain.

    Kernels of experts are tuned and the sampler is warmed up after the graphs were captured (`compile_or_warm_up_model`): then the peak of the
    profiling run is allocated once more, and the graphs hold part of what was kept for it (a log of GLM-4.7 in 0.15.1 ran out of memory there).
    """
    graphs = _late_graphs(budget, settings, model)
    if not model.experts_per_token:
        return graphs.value
    doubt = DOUBT_FACTOR * root_sum_square(graphs.sigma, 0.1 * budget.activation)
    return where(graphs.value > 0, graphs.value + budget.activation + doubt, graphs.value)


def _late_graphs(budget: MemoryBudget, settings: VllmSettings, model: ModelArchitecture) -> parts.Estimate:
    runner = ModelRunner.of(budget.rules, model, settings.env, settings.quantization is not None)
    if budget.rules.cpu or settings.enforce_eager or runner.graphs_are_estimated:
        return parts.Estimate(0.0, 0.0)
    width = parts.dtype_bytes(settings.dtype)
    return parts.cuda_graphs(model, budget.rules, budget.knobs.sequences, width, settings.tensor_parallel_size)


def too_full(budget: MemoryBudget) -> Number:
    """Return whether the share is too large for a start to be certain. An engine that was measured is exempt."""
    return both(budget.knobs.share >= MOST_CERTAIN_SHARE, not (budget.rules.cpu or budget.calibrated))


def flag_conflict(knobs: Knobs) -> tuple[Number, Number]:
    """Return whether vLLM refuses the batch tokens (`SchedulerConfig.verify_max_model_len`): because they are fewer than the sequences, and
    because they are fewer than the context, without chunked prefill."""
    few_for_sequences = knobs.batch_tokens < knobs.sequences
    few_for_context = both(knobs.batch_tokens < knobs.context, _not(knobs.chunked))
    return few_for_sequences, few_for_context


def longest_context(budget: MemoryBudget) -> Number:
    """Return the tokens of the longest sequence that the cache holds. Sliding layers count as if they kept all of it: a lower bound."""
    layout = budget.layout
    usable = budget.blocks - (1 if budget.rules.null_block else 0) - layout.state_tables * layout.states_of_a_request
    return maximum(usable // max(layout.groups - layout.state_tables, 1) * budget.knobs.block_size, 0)


def _not(value: Number) -> Number:
    return ~value if is_array(value) else not value


def _ceil(value: Number) -> Number:
    return ceil_div(value, 1)


def _check_range(name: str, value: Number, bounds: Bounds, of: str = "") -> None:
    """Raise UserError for a value outside these limits, or for such a value among many."""
    if isinstance(value, bool) or not (value.dtype.kind in "iuf" if is_array(value) else isinstance(value, Real)):
        raise UserError(f"{name}={value[0] if is_array(value) else value}: not a number. Set a number {bounds.allowed}{of}.")
    for one in (value.min(), value.max()) if is_array(value) else (value,):
        if not bounds.holds(one):
            raise UserError(f"{name}={_shown(one)}: out of range. Set a number {bounds.allowed}{of}.")


def _shown(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


__all__ = ["GIB", "Knobs", "MemoryBudget", "after_the_cache", "estimate_memory", "flag_conflict", "graphs_after", "longest_context", "resolve_knobs", "too_full"]
