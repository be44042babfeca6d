"""The memory model against logged starts: `python -m tests.benchmarks.preflight [FILE.jsonl … --archs ARCHS.json …] [--json OUT]`.

Without a file: all files of `tests/data/vllm_memory`, each with its own table of architectures. The last table has the figures of each file and
of each era of vLLM.

For each row: predicted and logged weights, KV tokens and verdict, in two ways.
**given**: the log's own weights and overhead are handed to the predictor (its account, or where it prints only the memory of the KV cache, that).
**blind**: architecture, card and flags only.

The errors are of the starts that succeeded and whose KV tokens the log shows. The verdict counts where the blind prediction is possible (the
architecture and the card's memory are known), or else the given one. A row marked `suspect` is one to which the plain formula does not apply:
it is reported as not modelled and is in no error.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from tests.benchmarks.preflight_doubt import lines_of
from tests.benchmarks.preflight_groups import groups_of, percentile, table_of
from tests.benchmarks.preflight_rows import LoggedStart, read_row
from tune_gpu.common.errors import UserError
from tune_gpu.evaluation.memory_check.cards import card_memory
from tune_gpu.services.memory_values import ALONE, DeviceMemory, MemoryVerdict, Prediction
from tune_gpu.services.predictions import BesideMany
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.attention_kinds import refused_family
from tune_gpu.services.vllm.memory.budget import resolve_knobs, tokens_of
from tune_gpu.services.vllm.memory.calibration import MEASURED_FLAGS, Calibration
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.kv_layout import KvLayout
from tune_gpu.services.vllm.memory.model_catalogue import known_model
from tune_gpu.services.vllm.memory.parts import kv_value_bytes
from tune_gpu.services.vllm.memory.predict import predict, refusal
from tune_gpu.services.vllm.memory.predict_many import predict_many
from tune_gpu.services.vllm.settings import VllmSettings

FITS, NOT, NOT_MODELLED = "fits", "does_not_fit", "not_modelled"
MIB = 2**20
MODELLED_SINCE = ("hybrid of linear", "caches of two shapes", "chunked local attention")
"""Reasons of `suspect` rows that the memory model has learned since: they count if the architecture is known."""


def evaluate(rows: Iterable[dict[str, Any]], archs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every case and the summary."""
    cases = [_evaluate_or_say_why_not(row, archs) for row in rows]
    return {"cases": cases, "summary": summarise(cases)}


def _evaluate_or_say_why_not(row: dict[str, Any], archs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row; a row with nonsense in it is reported as such and does not lose the others."""
    try:
        return evaluate_row(read_row(row, archs))
    except Exception as error:  # whatever nonsense a row holds
        bare = {key: row[key] for key in ("id", "source", "model", "outcome", "suspect") if isinstance(row.get(key), (str, bool, int))}
        bare["model"] = str(bare.get("model") or "")
        case = evaluate_row(read_row(bare, {}))
        case["predicted"].update(verdict=NOT_MODELLED, reason=f"the row cannot be read: {type(error).__name__}: {error}")
        case["verdict_right"] = None
        return case


def evaluate_row(start: LoggedStart) -> dict[str, Any]:
    """One case: inputs that could be read, predictions and truth."""
    row = start.row
    case: dict[str, Any] = {
        "id": start.id, "source": row.get("source"), "model": row.get("model"), "engine": ("v1" if start.v1 else "v0") + " " + start.version, "suspect": start.suspect,
        "logged": {"weights_gib": row.get("weights_gib"), "kv_cache_tokens": start.tokens, "outcome": row.get("outcome"),
                   "verdict": FITS if start.started else NOT},
        "predicted": {"weights_gib": None, "kv_cache_tokens": None, "kv_cache_tokens_given": None, "verdict": None, "verdict_from": None,
                      "certainty": None, "reason": None},
        "abs_error_given": None, "abs_error_blind": None, "verdict_right": None,
    }
    prediction = case["predicted"]
    no = _not_modelled(start)
    if no is not None:
        prediction.update(verdict=NOT_MODELLED, reason=no)
        return case
    blind = _blind(start)
    if blind is not None:
        if blind.verdict is MemoryVerdict.NOT_MODELLED:
            prediction.update(verdict=NOT_MODELLED, reason=blind.reason)
            return case
        assert blind.kv_cache_tokens is not None
        prediction.update(
            weights_gib=round(blind.parts_mib["weights"] / 1024, 3), kv_cache_tokens=blind.kv_cache_tokens.value,
            kv_cache_tokens_range=[blind.kv_cache_tokens.low, blind.kv_cache_tokens.high], certainty=str(blind.verdict), reason=blind.reason,
            verdict=FITS if blind.likely else NOT, verdict_from="blind",
        )
    given = _given(start)
    if given is not None:
        tokens, fits = given
        prediction["kv_cache_tokens_given"] = tokens
        if blind is None and fits is not None:
            prediction.update(verdict=FITS if fits else NOT, verdict_from="given", reason="from the log's own KV memory")
    if prediction["verdict"] is None and (free := _by_free_memory(start)) is not None:
        prediction.update(verdict=NOT if free < 0 else None, verdict_from="free memory", reason=f"{free:.2f} GiB to spare at the start")
    _score(case, start)
    return case


def _score(case: dict[str, Any], start: LoggedStart) -> None:
    prediction, truth = case["predicted"], start.tokens
    if truth:
        for name, value in (("abs_error_given", prediction["kv_cache_tokens_given"]), ("abs_error_blind", prediction["kv_cache_tokens"])):
            case[name] = None if value is None else round(abs(value / truth - 1), 5)
    if prediction["verdict"] in (FITS, NOT):
        case["verdict_right"] = prediction["verdict"] == case["logged"]["verdict"]


def _not_modelled(start: LoggedStart) -> str | None:
    if start.model is not None and (named := refusal(start.settings, start.model)):
        return f"by its architecture or flags: {named}"
    if start.model is None and (named := refused_family(str(start.row.get("model") or ""))):
        return f"by its name: {named}"
    if start.suspect and (start.model is None or not any(word in str(start.row.get("suspect_reason")) for word in MODELLED_SINCE)):
        return f"marked in the file: {start.row.get('suspect_reason')}"
    return None


def _blind(start: LoggedStart) -> Prediction | None:
    if start.model is None or start.device is None:
        return None
    try:
        return predict(start.settings, ALONE, start.device, start.model, version=start.version, v1=start.v1)
    except UserError as error:
        return Prediction(MemoryVerdict.NOT_MODELLED, str(error))


def _given(start: LoggedStart) -> tuple[int | None, bool | None] | None:
    """(KV tokens, whether it fits) from the log's own account."""
    account, kv_mib = start.account_mib(), start.kv_mib()
    share = start.row.get("gpu_memory_utilization")
    total = start.row.get("total_gib")
    if account is not None and share is not None and total is not None:
        if start.model is None:
            left = share * total * 1024 - sum(account)
            return None, False if left < 0.01 * 1024 else None
        calibration = Calibration(account[0], account[1], None, start.version, {name: getattr(start.settings, name) for name in MEASURED_FLAGS})
        device = DeviceMemory("logged", "cuda", total * 1024)
        found = predict(start.settings, ALONE, device, start.model, calibration, version=start.version, v1=start.v1)
        assert found.kv_cache_tokens is not None
        return found.kv_cache_tokens.value, (found.headroom_mib or 0) >= 0
    if kv_mib is not None and start.model is not None:
        return _tokens_in(start, kv_mib)
    return None


def _tokens_in(start: LoggedStart, kv_mib: float) -> tuple[int, bool | None]:
    assert start.model is not None
    rules = EngineRules.of(start.version, v1=start.v1)
    device = start.device or DeviceMemory("unknown", "cuda", 24 * 1024)
    knobs = resolve_knobs(start.settings, start.model, device, rules)
    value_bytes = kv_value_bytes(start.settings.kv_cache_dtype, 2)
    layout = KvLayout.of(start.model, rules, value_bytes or 2.0, start.settings.tensor_parallel_size)
    knobs = replace(knobs, block_size=layout.block_tokens(knobs.block_size))
    blocks = max(0, kv_mib * MIB // (layout.bytes_per_token * knobs.block_size))
    needed = layout.blocks_of_a_request(knobs.context, knobs.batch_tokens, knobs.block_size)
    fits = blocks >= needed if start.row.get("max_model_len") else None
    return int(tokens_of(blocks, layout, rules, knobs)), fits


def _by_free_memory(start: LoggedStart) -> float | None:
    """Without an architecture: vLLM's first rule alone, the share must be free (GiB to spare)."""
    row = start.row
    if row.get("free_gib") is None or row.get("total_gib") is None:
        return None
    return float(row["free_gib"]) - start.settings.gpu_memory_utilization * float(row["total_gib"])


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures over all cases that have them."""
    given = sorted(case["abs_error_given"] for case in cases if case["abs_error_given"] is not None)
    blind = sorted(case["abs_error_blind"] for case in cases if case["abs_error_blind"] is not None)
    right = [case["verdict_right"] for case in cases if case["verdict_right"] is not None]
    suspects = [case for case in cases if case["suspect"]]
    return {
        "median_abs_error_given": round(statistics.median(given), 5) if given else None,
        "median_abs_error_blind": round(statistics.median(blind), 5) if blind else None,
        "p90_abs_error_blind": round(percentile(blind, 0.9), 5) if blind else None,
        "verdict_accuracy": round(sum(right) / len(right), 5) if right else None,
        "cases": len(cases), "cases_given": len(given), "cases_blind": len(blind), "cases_verdict": len(right),
        "suspect": len(suspects), "suspect_not_modelled": sum(case["predicted"]["verdict"] == NOT_MODELLED for case in suspects),
        "not_modelled": sum(case["predicted"]["verdict"] == NOT_MODELLED for case in cases),
    }


def load_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file. Raises UserError for one that is not."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error})") from error
    return rows


DATA = Path(__file__).resolve().parents[1] / "data" / "vllm_memory"
FILES = {"cases": "archs", "more_cases": "more_archs", "found_cases": "found_archs", "third_cases": "third_archs"}
"""Files of logged starts, and their tables of architectures. `third_cases` was found after the model had been fitted to the others."""


def own_files() -> list[tuple[Path, dict[str, Any]]]:
    """Return each file of logged starts that is kept here, with its architectures."""
    return [(DATA / f"{name}.jsonl", json.loads((DATA / f"{table}.json").read_text())) for name, table in FILES.items()]


@click.command(help=__doc__)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--archs", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Where the result is written; the screen otherwise.")
def main(files: tuple[Path, ...], archs: tuple[Path, ...], out: Path | None) -> None:
    if bool(files) != bool(archs):
        raise click.UsageError("give files of logged starts together with --archs, or neither")
    table: dict[str, dict[str, Any]] = {}
    for path in archs:
        table |= json.loads(path.read_text())
    by_file = {file.stem: evaluate(load_rows(file), known)["cases"] for file, known in ([(file, table) for file in files] or own_files())}
    cases = [case for rows in by_file.values() for case in rows]
    groups = groups_of(by_file)
    result = {"cases": cases, "summary": summarise(cases), "groups": groups}
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")
    for case in cases:
        _print_case(case)
    click.echo(json.dumps(result["summary"], indent=1))
    click.echo("\n".join([*table_of(groups), *lines_of(cases), many_candidates()]))


def many_candidates(count: int = 100_000) -> str:
    """Predict this many candidates, and return a line with the time that it took."""
    random = np.random.default_rng(0)
    columns = {
        "gpu_memory_utilization": random.uniform(0.2, 0.99, count), "max_model_len": random.integers(512, 30000, count),
        "max_num_seqs": random.integers(1, 512, count), "max_num_batched_tokens": random.integers(512, 8192, count),
        "enforce_eager": random.choice([True, False], count), "kv_cache_dtype": random.choice(["auto", "fp8"], count),
    }
    model = from_config(known_model("Qwen2.5-7B") or {}, "Qwen2.5-7B")
    started = time.perf_counter()
    predict_many(VllmSettings(model="Qwen2.5-7B"), BesideMany(), columns, card_memory("RTX 4090"), model)
    return f"{count} candidates predicted in {time.perf_counter() - started:.2f} s"


def _print_case(case: dict[str, Any]) -> None:
    prediction, logged = case["predicted"], case["logged"]
    errors = " ".join(f"{name} {100 * case[key]:5.1f} %" for name, key in (("given", "abs_error_given"), ("blind", "abs_error_blind")) if case[key] is not None)
    mark = {True: "right", False: "WRONG", None: "-"}[case["verdict_right"]]
    click.echo(f"{case['id']:>6} {str(case['model'])[:34]:34} {prediction['verdict'] or '-':13} {mark:5} "
               f"tokens {prediction['kv_cache_tokens']} / {logged['kv_cache_tokens']}  {errors}")


if __name__ == "__main__":
    main()
