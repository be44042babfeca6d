"""What the program makes of answers of NVML: `python -m tests.benchmarks.nvml_answers FILE.json [--json OUT]`.

The file is a list of cards. Of each:

    where     a name for the table
    name      of the card, as NVML gives it (default: a GeForce RTX 3060)
    raises    NVML function -> the error that it answers with (`NVMLError_NoData`, `NoData` or `NVML_ERROR_NO_DATA`)
    returns   NVML function -> what it answers instead: a number, a text, null, an object ({"total": 0, "used": 0, "free": 0}) or a list of those
    bar1_mib  the size of its BAR1, for a card with memory of its own that does not report it

Other keys are carried through. The probe, the evaluation with its verdicts, the soak, the preflight, the doctor and the check of the objectives are
the real ones; made up are NVML at its seam and two services that answer at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import click
import pynvml
from rich.console import Console
from rich.table import Table

from tests.support.fake_nvml import ERRORS, FakeNvml
from tests.support.servers import Behaviour, servers
from tests.unit.evaluation.test_card_evaluation import BEFORE, PARAMS, QUICK, RUNNING, MadeUpCard
from tune_gpu.cli.doctor.cards import check_driver, read_driver
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.compare.measuring_actor import MeasurementActor
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig, ObjectiveSettings
from tune_gpu.evaluation.evaluator import Evaluator
from tune_gpu.evaluation.measurement import Measurement
from tune_gpu.evaluation.memory_check.cards import this_card
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import PAIR
from tune_gpu.promote.soak import hold_under_load, judge_soak
from tune_gpu.telemetry import sampler
from tune_gpu.telemetry.device_choice import check_reported, read_from_the_card
from tune_gpu.telemetry.open import open_probe
from tune_gpu.telemetry.verdicts import NOT_PROVEN
from tune_gpu.workload import window
from tune_gpu.workload.traffic import Traffic

KEPT = ("where", "name", "raises", "returns", "now", "want")


class HeldActor(MeasurementActor):
    """The actor of a soak, in this process and with services that run already."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._config, self._device, self._evaluator = evaluator.config, "cuda", evaluator


@patch.object(window, "MAX_LAG_P99_MS", float("inf"))  # the question is what the card answers, not how busy this machine is
def result_of(entry: Mapping[str, Any], traffic: Traffic) -> dict[str, Any]:
    """What each reading and each verdict becomes on this card."""
    with card_of(entry) as nvml:
        found: dict[str, Any] = {name: entry[name] for name in KEPT if name in entry}
        found["doctor"] = [str(finding.found) for finding in check_driver(read_driver(nvml), [])]
        found["preflight"] = _said(lambda: f"{this_card().total_mib:.0f} MiB")
        found["objectives_refused"] = {name: why for name in read_from_the_card() if (why := _refused(name))}
        found["efficiency_refused"] = _refused(None)
        try:
            with contextlib.closing(open_probe("cuda")) as probe:
                reading = {name: _plain(value) for name, value in vars(probe.read()).items()}
                found |= {"opens": "yes", "card": probe.info.as_dict(), "readings": reading}
        except ServiceError as error:
            found |= {"opens": str(error), "card": {}, "readings": {}}
        return found | _evaluated(nvml, traffic) | {"soak": _soaked(nvml, traffic)}


@contextlib.contextmanager
def card_of(entry: Mapping[str, Any]) -> Iterator[FakeNvml]:
    """The made-up NVML in the place of `pynvml`."""
    nvml = FakeNvml([BEFORE])
    nvml.name = str(entry.get("name") or "NVIDIA GeForce RTX 3060").encode()
    nvml.bar1_mib = entry.get("bar1_mib")
    nvml.raises = {function: ERRORS[_error(error)] for function, error in (entry.get("raises") or {}).items()}
    nvml.returns = {function: _structure(value) for function, value in (entry.get("returns") or {}).items()}
    with patch.dict(sys.modules, {"pynvml": nvml}), patch.dict(os.environ), patch.object(sampler, "HZ", 100.0):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        yield nvml


def read_cards(file: Path) -> list[Mapping[str, Any]]:
    """The cards of a file. Raises UserError for what is no list of cards."""
    try:
        cards = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: it cannot be read ({error}). Give a JSON list of cards.") from error
    if not isinstance(cards, list):
        raise UserError(f"{file}: it is no list. Give a JSON list of cards.")
    for number, card in enumerate(cards):
        try:
            _check(card)
        except UserError as error:
            raise UserError(f"{file}, card {number}: {error}") from error
    return cards


def _check(card: Any) -> None:
    if not isinstance(card, dict):
        raise UserError("it is no object. Give one with raises or returns.")
    for key in ("raises", "returns"):
        given = card.get(key) or {}
        if not isinstance(given, dict):
            raise UserError(f"{key}: it is no object. Give NVML's functions as its keys.")
        if unknown := [name for name in given if not (name.startswith("nvml") and hasattr(pynvml, name))]:
            raise UserError(f"{key}.{unknown[0]}: it is no function of NVML's. Name one of pynvml's.")
    for error in (card.get("raises") or {}).values():
        _error(error)
    if not isinstance(card.get("bar1_mib"), int | float | None):
        raise UserError(f"bar1_mib={card['bar1_mib']}: it is no number. Give the size in MiB.")


def _error(name: Any) -> str:
    """`NoData`, however it is written. Raises UserError for no error of NVML's."""
    bare = str(name).removeprefix("NVMLError_")
    if bare.startswith("NVML_ERROR_"):
        bare = "".join(part.capitalize() for part in bare.removeprefix("NVML_ERROR_").split("_"))
    if bare not in ERRORS:
        raise UserError(f"raises: {name} is no error of NVML's; allowed: {', '.join(ERRORS)}")
    return bare


def _structure(value: Any) -> Any:
    if isinstance(value, list):
        return [_structure(part) for part in value]
    return SimpleNamespace(**value) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


def _said(work: Any) -> str:
    try:
        return str(work())
    except UserError as error:
        return str(error)


def _refused(objective: str | None) -> str | None:
    """Why the check before a run refuses it (null for none: the weight of the utilisation)."""
    settings = ObjectiveSettings(weights={"efficiency": 0.1} if objective is None else {"wer": 1.0})
    try:
        check_reported(settings, "cuda", [objective] if objective else [])
    except UserError as error:
        return str(error)
    return None


def _config() -> ExperimentConfig:
    return load_config("spica_gpu_allocation", [*QUICK, "objective.weights.efficiency=0"], "cuda")


def _evaluated(nvml: FakeNvml, traffic: Traffic) -> dict[str, Any]:
    log: list[str] = []
    nvml._frames = [BEFORE]
    evaluator = Evaluator(_config(), "cuda", log=log.append, deploy=MadeUpCard(traffic, nvml, RUNNING))
    measured: Measurement = evaluator.evaluate(PARAMS)
    nvml._frames = [BEFORE]  # both have gone, their memory with them
    evaluator.close()
    metrics = measured.metrics
    unchecked = metrics.get("unchecked", [])
    return {
        "window": "ok" if measured.failure is None else f"{measured.failure.kind}: {measured.failure.message}",
        "unchecked": unchecked,
        "device_proof": _proof(measured, unchecked),
        "memory_returned": next((line for line in log if "come back" in line and "before the last service" not in line), "yes"),
        "neighbours": metrics.get("neighbours"),
        "null_metrics": [path for path in PAIR.objective_paths() if metric_at(metrics, path) is None],
        **{name: metrics.get(name) for name in ("gpu_utilization", "memory_used_mib", "service_memory_mib", "energy_per_request_j", "fitness")},
    }


def _proof(measured: Measurement, unchecked: list[str]) -> str:
    if measured.failure is not None:
        return str(measured.failure.kind)
    return next((warning for warning in unchecked if warning.startswith(NOT_PROVEN)), "proven")


def _soaked(nvml: FakeNvml, traffic: Traffic) -> dict[str, Any]:
    nvml._frames = [BEFORE]
    evaluator = Evaluator(_config(), "cuda", deploy=MadeUpCard(traffic, nvml, RUNNING))
    condition = judge_soak(hold_under_load(HeldActor(evaluator), PARAMS, 1.0, lambda _line: None), 5.0)
    nvml._frames = [BEFORE]
    evaluator.close()
    return condition.as_dict()


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table("where", "not reported", "window", "device proof", "memory back", "service memory", "soak", "objectives refused")
    for result in results:
        nulls = [name for name, value in {**result["card"], **result["readings"]}.items() if value is None and name != "cores"]
        table.add_row(
            str(result.get("where", "")),
            ", ".join(nulls) or ("the host's memory" if result["card"].get("shares_host_memory") else "-"),
            result["window"],
            result["device_proof"].partition(":")[0],
            result["memory_returned"].partition(":")[0],
            str(result["service_memory_mib"]),
            f"{'holds' if result['soak']['holds'] else 'does not hold'}: {result['soak']['said'].partition('(')[0]}",
            ", ".join(result["objectives_refused"]) or "-",
        )
    return table


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Where the whole result is written.")
def main(file: Path, out: Path | None) -> None:
    """Answers of NVML, from a file, through the real program."""
    try:
        cards = read_cards(file)
    except UserError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    with servers(Behaviour(stt_s=0.001, first_token_s=0.001)) as traffic:
        results = [result_of(entry, traffic) for entry in cards]
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    Console(width=200).print(_table(results))


if __name__ == "__main__":
    main()
