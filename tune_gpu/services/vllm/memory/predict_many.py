"""Predict a whole space at once: the same formulas on arrays, one pass for each combination of flags that are not numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from tune_gpu.config.targets import Target, written_over
from tune_gpu.search.values import to_builtin
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.predictions import CODE, BesideMany, Columns, Predictions, groups_of
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import MIB
from tune_gpu.services.vllm.memory.budget import after_the_cache, estimate_memory, flag_conflict, too_full
from tune_gpu.services.vllm.memory.calibration import Calibration
from tune_gpu.services.vllm.memory.predict import START_SIGMA_MIB, predict, refusal, share_mib, taken_mib, too_heavy
from tune_gpu.services.vllm.settings import VllmSettings

NUMERIC = ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size")
"""Flags that may be arrays; every other flag that matters splits the space into groups."""
_GROUPING = ("model", "dtype", "kv_cache_dtype", "quantization", "tensor_parallel_size", "enforce_eager", "enable_chunked_prefill", "runner")
ModelOf = Callable[[str], ModelArchitecture]
CalibrationOf = Callable[[VllmSettings], Calibration | None]
SettingsT = TypeVar("SettingsT")


def predict_many(
    vllm: VllmSettings, beside: BesideMany, columns: Columns, device: DeviceMemory, model: ModelArchitecture | ModelOf,
    calibration: Calibration | CalibrationOf | None = None, *, count: int | None = None, version: str | None = None, warm: bool = False,
) -> Predictions:
    """Return what each of many candidates' engines will take.

    Args:
        vllm: the flags that do not vary.
        beside: what the services that start before it hold in each candidate.
        columns: what varies of the engine, all of one length.
        model: the shapes, or a function that returns them for a model's name.
        calibration: of this engine, or a function that returns it for its settings.
        count: how many candidates there are; by default the length of the columns, or one.

    Raises:
        UserError: a value that no engine accepts.
        ValueError: columns of different lengths.
    """
    sizes = {len(values) for values in columns.values()} | ({count} if count is not None else set())
    if len(sizes) > 1:
        raise ValueError(f"columns of different lengths: { {name: len(values) for name, values in columns.items()} }")
    count = sizes.pop() if sizes else 1
    model_of: ModelOf = model if callable(model) else (lambda _name: model)
    calibration_of: CalibrationOf = calibration if callable(calibration) else (lambda _settings: calibration)
    numeric, grouping = _split(columns)
    code, (tokens, sequences, headroom) = np.full(count, CODE[MemoryVerdict.NOT_MODELLED]), np.full((3, count), np.nan)
    found = Predictions(
        code, tokens, sequences, headroom, np.zeros(count), np.zeros(count),
        _explainer(vllm, beside, columns, device, model_of, calibration_of, version, warm),
    )  # fmt: skip
    for rows, values in groups_of(grouping, count):
        settings = with_values(vllm, values)
        shapes = model_of(settings.model)
        arrays = {name: column[rows] for name, column in numeric.items()}
        if "gpu_memory_utilization" not in arrays:  # one array at least, so that everything after it is one
            arrays["gpu_memory_utilization"] = np.full(len(rows), settings.gpu_memory_utilization)
        if refusal(settings, shapes):
            found.takes_mib[rows] = share_mib(replace(settings, **arrays), device)
            if too_heavy(settings, device, shapes):
                found.verdict[rows] = CODE[MemoryVerdict.INFEASIBLE]
            continue
        _fill(found, rows, replace(settings, **arrays), beside.rows(rows), device, shapes, calibration_of(settings), version, warm)
    return found


def _fill(
    found: Predictions, rows: np.ndarray, settings: VllmSettings, beside: BesideMany, device: DeviceMemory,
    model: ModelArchitecture, calibration: Calibration | None, version: str | None, warm: bool,
) -> None:
    budget = estimate_memory(settings, device, model, calibration, version, warm=warm)
    at_start = device.free_mib - beside.total_mib - budget.own_context / MIB - budget.requested / MIB
    inside = (budget.kv - budget.needed) / MIB
    doubt, start_doubt = budget.doubt / MIB, np.hypot(2 * np.hypot(START_SIGMA_MIB[device.kind], beside.sigma_mib), budget.total_doubt / MIB)
    indivisible = settings.tensor_parallel_size > 1 and model.heads % settings.tensor_parallel_size != 0
    few_for_sequences, few_for_context = flag_conflict(budget.knobs)
    bad = np.zeros(len(rows), bool) | few_for_sequences | few_for_context | indivisible
    fits = (at_start >= start_doubt) & ((inside >= doubt) | model.cacheless) & (after_the_cache(budget, settings, model) / MIB <= np.maximum(at_start, 0))
    fits = fits & np.logical_not(too_full(budget))
    code = np.where(fits, CODE[MemoryVerdict.FITS], CODE[MemoryVerdict.UNCERTAIN])
    code = np.where(bad | (at_start < -start_doubt) | (inside < -doubt), CODE[MemoryVerdict.INFEASIBLE], code)
    found.verdict[rows] = code
    found.kv_cache_tokens[rows] = np.floor(budget.tokens)
    found.max_concurrency[rows] = budget.blocks / budget.request_blocks
    found.headroom_mib[rows] = inside
    found.shortfall_mib[rows] = np.maximum(0.0, np.maximum(-at_start, -inside))
    found.takes_mib[rows] = taken_mib(budget, model)


def _split(columns: Columns) -> tuple[dict[str, np.ndarray], dict[str, Sequence[Any] | np.ndarray]]:
    """Return the columns of numbers, and the columns that split the space; columns that memory does not depend on are left out."""
    numeric: dict[str, np.ndarray] = {}
    grouping: dict[str, Sequence[Any] | np.ndarray] = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if name in NUMERIC and array.dtype.kind in "if":
            numeric[name] = array.astype(float) if name.endswith("utilization") else array
        elif name in _GROUPING or name.startswith(("extra_args.", "env.")) or name in NUMERIC:
            grouping[name] = values
    return numeric, grouping


def with_values(settings: SettingsT, values: Mapping[str, Any]) -> SettingsT:
    """Return the settings of a service with these values, by setting or entry (`extra_args.seed`), written over them."""
    return written_over(settings, [(Target.parse(f"it.{name}"), value) for name, value in values.items()])


def _explainer(
    vllm: VllmSettings, beside: BesideMany, columns: Columns, device: DeviceMemory, model_of: ModelOf,
    calibration_of: CalibrationOf, version: str | None, warm: bool,
) -> Callable[[int], Prediction]:
    """Return a function that predicts one candidate; candidates that differ only in what memory does not depend on share a prediction."""
    known: dict[str, Prediction] = {}

    def explain(index: int) -> Prediction:
        values, others = {name: to_builtin(column[index]) for name, column in columns.items()}, beside.at(index)
        key = repr((values, others))
        if key not in known:
            settings = with_values(vllm, values)
            known[key] = predict(settings, others, device, model_of(settings.model), calibration_of(settings), version=version, warm=warm)
        return known[key]

    return explain
