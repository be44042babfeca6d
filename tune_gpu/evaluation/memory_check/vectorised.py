"""Predict a whole space at once: the same formulas on arrays, one pass for each combination of flags that are not numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tune_gpu.config.schema import VllmSettings, WhisperSettings
from tune_gpu.config.targets import Target, written_over
from tune_gpu.evaluation.memory_check.predictor import START_SIGMA_MIB, predict, refusal, too_heavy
from tune_gpu.search.values import to_builtin
from tune_gpu.services.faster_whisper.memory import whisper_mib
from tune_gpu.services.memory_values import DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import MIB
from tune_gpu.services.vllm.memory.budget import after_the_cache, estimate_memory, flag_conflict, too_full
from tune_gpu.services.vllm.memory.calibration import Calibration

NUMERIC = ("gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size")
"""Flags that may be arrays; every other flag that matters splits the space into groups."""
_GROUPING = ("vllm.model", "vllm.dtype", "vllm.kv_cache_dtype", "vllm.quantization", "vllm.tensor_parallel_size", "vllm.enforce_eager",
             "vllm.enable_chunked_prefill", "whisper.model", "whisper.compute_type", "whisper.beam_size", "whisper.num_workers", "whisper.batch_size")
VERDICTS = (MemoryVerdict.FITS, MemoryVerdict.UNCERTAIN, MemoryVerdict.INFEASIBLE, MemoryVerdict.NOT_MODELLED)
_CODE = {verdict: np.int8(code) for code, verdict in enumerate(VERDICTS)}

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Dotted target (`vllm.max_model_len`) -> its value in every candidate."""
ModelOf = Callable[[str], ModelArchitecture]
CalibrationOf = Callable[[VllmSettings], Calibration | None]


@dataclass(frozen=True)
class Predictions:
    """One prediction for each candidate of a space, in order. Shapes (n,); NaN where it is not modelled."""

    verdict: np.ndarray
    """Index into `VERDICTS`."""
    kv_cache_tokens: np.ndarray
    max_concurrency: np.ndarray
    headroom_mib: np.ndarray
    shortfall_mib: np.ndarray
    explain: Callable[[int], Prediction]
    """Returns the whole prediction of one candidate, with its reason."""

    def __len__(self) -> int:
        return len(self.verdict)

    def count(self, verdict: MemoryVerdict) -> int:
        """Return how many candidates have this verdict."""
        return int((self.verdict == _CODE[verdict]).sum())

    @property
    def allowed(self) -> np.ndarray:
        """Return which candidates may be launched: all but the infeasible."""
        return self.verdict != _CODE[MemoryVerdict.INFEASIBLE]

    def refused(self) -> list[int]:
        """Return the indices of the infeasible candidates, in order."""
        return [int(index) for index in np.flatnonzero(~self.allowed)]

    def verdict_of(self, index: int) -> MemoryVerdict:
        """Return the verdict of one candidate."""
        return VERDICTS[int(self.verdict[index])]


def predict_many(
    vllm: VllmSettings, whisper: WhisperSettings | None, columns: Columns, device: DeviceMemory, model: ModelArchitecture | ModelOf,
    calibration: Calibration | CalibrationOf | None = None, *, version: str | None = None, warm: bool = False,
) -> Predictions:
    """Return what each of many candidates will take.

    Args:
        vllm: the flags that do not vary.
        whisper: likewise; None if there is none.
        columns: what varies, all of one length.
        model: the shapes, or a function that returns them for a model's name.
        calibration: of this engine, or a function that returns it for its settings.

    Raises:
        UserError: a value that no engine accepts.
        ValueError: columns of different lengths.
    """
    sizes = {len(values) for values in columns.values()}
    if len(sizes) > 1:
        raise ValueError(f"columns of different lengths: { {name: len(values) for name, values in columns.items()} }")
    count = sizes.pop() if sizes else 1
    model_of: ModelOf = model if callable(model) else (lambda _name: model)
    calibration_of: CalibrationOf = calibration if callable(calibration) else (lambda _settings: calibration)
    numeric, grouping = _split(columns)
    found = Predictions(
        np.full(count, _CODE[MemoryVerdict.NOT_MODELLED]), np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan), np.zeros(count),
        _explainer(vllm, whisper, columns, device, model_of, calibration_of, version, warm),
    )
    for rows, values in _groups(grouping, count):
        settings, listener = _with(vllm, whisper, values)
        shapes = model_of(settings.model)
        if refusal(settings, shapes):
            if too_heavy(settings, device, shapes):
                found.verdict[rows] = _CODE[MemoryVerdict.INFEASIBLE]
            continue
        arrays = {name.removeprefix("vllm."): column[rows] for name, column in numeric.items()}
        if "gpu_memory_utilization" not in arrays:  # one array at least, so that everything after it is one
            arrays["gpu_memory_utilization"] = np.full(len(rows), settings.gpu_memory_utilization)
        _fill(found, rows, replace(settings, **arrays), listener, device, shapes, calibration_of(settings), version, warm)
    return found


def _fill(
    found: Predictions, rows: np.ndarray, settings: VllmSettings, whisper: WhisperSettings | None, device: DeviceMemory,
    model: ModelArchitecture, calibration: Calibration | None, version: str | None, warm: bool,
) -> None:
    budget = estimate_memory(settings, device, model, calibration, version, warm=warm)
    beside, beside_sigma = whisper_mib(whisper, device.kind) if whisper is not None else (0.0, 0.0)
    at_start = device.free_mib - beside - budget.own_context / MIB - budget.requested / MIB
    inside = (budget.kv - budget.needed) / MIB
    doubt, start_doubt = budget.doubt / MIB, 2 * np.hypot(START_SIGMA_MIB[device.kind], beside_sigma)
    indivisible = settings.tensor_parallel_size > 1 and model.heads % settings.tensor_parallel_size != 0
    few_for_sequences, few_for_context = flag_conflict(budget.knobs)
    bad = np.zeros(len(rows), bool) | few_for_sequences | few_for_context | indivisible
    fits = (at_start >= start_doubt) & ((inside >= doubt) | model.cacheless) & (after_the_cache(budget, settings, model) / MIB <= np.maximum(at_start, 0))
    fits = fits & np.logical_not(too_full(budget))
    code = np.where(fits, _CODE[MemoryVerdict.FITS], _CODE[MemoryVerdict.UNCERTAIN])
    code = np.where(bad | (at_start < -start_doubt) | (inside < -doubt), _CODE[MemoryVerdict.INFEASIBLE], code)
    found.verdict[rows] = code
    found.kv_cache_tokens[rows] = np.floor(budget.tokens)
    found.max_concurrency[rows] = budget.blocks / budget.request_blocks
    found.headroom_mib[rows] = inside
    found.shortfall_mib[rows] = np.maximum(0.0, np.maximum(-at_start, -inside))


def _split(columns: Columns) -> tuple[dict[str, np.ndarray], dict[str, Sequence[Any] | np.ndarray]]:
    """Return the columns of numbers, and the columns that split the space; columns that memory does not depend on are left out."""
    numeric: dict[str, np.ndarray] = {}
    grouping: dict[str, Sequence[Any] | np.ndarray] = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if name.removeprefix("vllm.") in NUMERIC and array.dtype.kind in "if":
            numeric[name] = array.astype(float) if name.endswith("utilization") else array
        elif name in _GROUPING or name.startswith(("vllm.extra_args.", "vllm.env.")) or name.removeprefix("vllm.") in NUMERIC:
            grouping[name] = values
    return numeric, grouping


def _groups(grouping: Mapping[str, Sequence[Any] | np.ndarray], count: int) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """Return groups of rows that agree in every grouping column, each with the values that they agree on."""
    code = np.zeros(count, np.int64)
    kinds: list[tuple[str, list[Any]]] = []
    for name, values in grouping.items():
        codes, kept = _coded(values)
        kinds.append((name, kept))
        code = code * len(kept) + codes
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    groups = []
    for rows in np.split(order, starts[1:]):
        rest = int(code[rows[0]])
        shared: dict[str, Any] = {}
        for name, kept in reversed(kinds):
            rest, place = divmod(rest, len(kept))
            shared[name] = kept[place]
        groups.append((rows, shared))
    return groups


def _coded(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Return the index of each row's value, and the different values of the column."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        unique, codes = np.unique(values, return_inverse=True)
        return codes, unique.tolist()
    seen: dict[Any, int] = {}
    kept: list[Any] = []

    def code_of(value: Any) -> int:
        try:
            key: Any = (type(value), value)
            place = seen.setdefault(key, len(kept))
        except TypeError:  # a list or a mapping
            place = seen.setdefault(repr(value), len(kept))
        if place == len(kept):
            kept.append(value)
        return place

    return np.fromiter(map(code_of, values), np.int64, len(values)), kept


def _with(vllm: VllmSettings, whisper: WhisperSettings | None, values: Mapping[str, Any]) -> tuple[VllmSettings, WhisperSettings | None]:
    changes = [(Target.parse(name), value) for name, value in values.items()]
    engine, listener = ([change for change in changes if change[0].service == service] for service in ("vllm", "whisper"))
    return written_over(vllm, engine), None if whisper is None else written_over(whisper, listener)


def _explainer(
    vllm: VllmSettings, whisper: WhisperSettings | None, columns: Columns, device: DeviceMemory, model_of: ModelOf,
    calibration_of: CalibrationOf, version: str | None, warm: bool,
) -> Callable[[int], Prediction]:
    """Return a function that predicts one candidate; candidates that differ only in what memory does not depend on share a prediction."""
    matter = {name: column for name, column in columns.items() if name.startswith("vllm.") or (name.startswith("whisper.") and name in _GROUPING)}
    known: dict[str, Prediction] = {}

    def explain(index: int) -> Prediction:
        values = {name: to_builtin(column[index]) for name, column in matter.items()}
        key = repr(values)
        if key not in known:
            settings, listener = _with(vllm, whisper, values)
            known[key] = predict(settings, listener, device, model_of(settings.model), calibration_of(settings), version=version, warm=warm)
        return known[key]

    return explain
