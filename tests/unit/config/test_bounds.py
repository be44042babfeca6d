"""Limits of settings: each is declared once, beside its setting, holds at its ends, and nothing else states it again."""

from __future__ import annotations

import ast
import copy
import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_run import RUN_ID
from tests.unit.promote.test_command import Desk, desk
from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.loader import load_config
from tune_gpu.config.rules import NumberOr, bounded, bounds_of, check, check_each
from tune_gpu.config.schema import ExperimentConfig, PromoteSettings, SearchSettings
from tune_gpu.experiment.checks import check_config
from tune_gpu.ray_tune import placement as resources
from tune_gpu.services import mps_policy as sharing

__all__ = ["desk"]
ROOT = Path(__file__).resolve().parents[3]


def declared(settings: Any, prefix: str = "") -> Iterator[tuple[str, Bounds, type]]:
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from declared(value, f"{prefix}{each.name}.")
        elif isinstance(each.metadata.get("rule"), (Bounds, NumberOr)):
            yield prefix + each.name, bounds_of(type(settings), each.name), int if "int" in str(each.type) else float


TABLE = list(declared(ExperimentConfig()))
LIMITS_OF = {name: bounds for name, bounds, _ in TABLE}
LIMITS = [
    (name, side, limit, kind)
    for name, bounds, kind in TABLE
    for side, limit in (("least", bounds.least), ("above", bounds.above), ("most", bounds.most), ("below", bounds.below))
    if limit is not None
]


WHOLE = load_config("spica_gpu_allocation", ["run.mps=true"], "cpu")


def with_value(config: ExperimentConfig, name: str, value: float) -> ExperimentConfig:
    found = copy.deepcopy(config)
    *sections, key = name.split(".")
    setattr(functools.reduce(getattr, sections, found), key, value)
    return found


def beyond(side: str, limit: float, by: float) -> float:
    return limit - by if side in ("least", "above") else limit + by


@given(st.sampled_from(LIMITS), st.floats(1e-6, 1e9))
def test_every_limit_holds_at_its_end_and_nowhere_beyond(limit: tuple[str, str, float, type], distance: float) -> None:
    name, side, end, kind = limit
    by = max(1, int(distance)) if kind is int else max(distance, abs(end) * 1e-9)
    inside, outside = (end, beyond(side, end, by)) if side in ("least", "most") else (beyond(side, end, -1 if kind is int else -1e-6), end)
    check_each(with_value(WHOLE, name, kind(inside)))
    for wrong in (kind(outside), kind(beyond(side, end, by))):
        with pytest.raises(UserError) as caught:
            check_each(with_value(WHOLE, name, wrong))
        key, _, rest = str(caught.value).partition("=")
        value, _, rule = rest.partition(": out of range. Set a number ")
        assert (key, float(value), rule) == (name, pytest.approx(wrong), f"{LIMITS_OF[name].allowed}.")


@dataclass
class MadeUp:
    spice: int = bounded(3, least=1, most=5)


def test_a_made_up_setting_with_a_limit_is_checked_by_one_edit() -> None:
    """The edit is the field itself."""
    check(MadeUp(5), "kitchen.")
    with pytest.raises(UserError, match=r"^kitchen\.spice=6: out of range. Set a number from 1 to 5\.$"):
        check(MadeUp(6), "kitchen.")


def test_a_limit_is_checked_when_a_configuration_is_read() -> None:
    with pytest.raises(UserError, match=r"^promote\.probes=-1: out of range. Set a number of at least 0"):
        load_config("spica_gpu_allocation", ["promote.probes=-1"], "cpu")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_limit_lets_through_what_is_not_finite(value: float) -> None:
    with pytest.raises(UserError, match="not a finite number"):
        load_config("spica_gpu_allocation", [f"workload.window_s={'.nan' if math.isnan(value) else str(value).replace('inf', '.inf')}"], "cpu")


def refusal(config: ExperimentConfig) -> str:
    """What any check says against it; empty for nothing."""
    try:
        check_config(config)
        resources.check_resources(config, "cpu")
        sharing.check_mps(config, "cuda")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "side", "limit", "kind"), LIMITS)
def test_no_other_rule_states_a_declared_limit(
    name: str, side: str, limit: float, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the declared limits switched off nothing refuses what lies beyond them, but rules on several settings together, which name another."""
    monkeypatch.setattr(Bounds, "holds", lambda _self, _value: True)
    monkeypatch.setattr("tune_gpu.workload.inputs.load_utterances", lambda *_: [])  # which clips there are is no rule on numbers
    message = refusal(with_value(WHOLE, name, kind(beyond(side, limit, 1))))
    others = set(re.findall(r"\b(?:search|workload|confirm|objective|ray|run|telemetry|promote|vllm|whisper)\.[\w.]*\w", message)) - {name}
    assert others or not message, f"a second rule: {message}"


def test_no_joint_rule_compares_a_bounded_setting_with_a_number() -> None:
    """That would be a second limit of one setting."""
    bounded_names = {name.rpartition(".")[2] for name, _, _ in TABLE}
    found = []
    for path in (ROOT / "tune_gpu").rglob("*.py"):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        joint = [node for node in functions if node.name == "conflicts" or ("check" in node.name and path.parent.name == "experiment")]
        for compared in (node for function in joint for node in ast.walk(function) if isinstance(node, ast.Compare)):
            sides = [compared.left, *compared.comparators]
            named = [side.attr for side in sides if isinstance(side, ast.Attribute) and side.attr in bounded_names]
            if named and any(isinstance(side, ast.Constant) and isinstance(side.value, (int, float)) for side in sides):
                found.append(ast.unparse(compared))
    assert sorted(found) == [
        "0 < self.capacity_step_s <= longest_pause_s",  # 0 leaves the ramp out
        "workload.windows < 2",  # with search.racing only
    ]


@pytest.mark.parametrize("target", ["whisper.cpu_threads", "whisper.start_timeout_s", "vllm.mps_active_thread_pct", "vllm.max_num_seqs"])
def test_a_knob_has_the_limits_of_its_setting(target: str) -> None:
    config = load_config("spica_gpu_allocation", [f"parameters.vllm_memory_util={{target: {target}, values: [-1, 1]}}", "baseline={}"], "cpu")
    config.baseline = {}
    with pytest.raises(UserError, match=rf"parameters\.vllm_memory_util: {re.escape(target)}=-1: out of range"):
        check_config(config)


def test_limits_are_put_into_words() -> None:
    assert bounds_of(SearchSettings, "tournament_size").allowed == "from 2 to 10000"
    assert bounds_of(PromoteSettings, "probes").allowed == "of at least 0"
    assert Bounds(above=0, most=131072).allowed == "above 0 and at most 131072"
    assert Bounds(least=0.5, below=1).allowed == "of at least 0.5 and below 1"
    assert bounds_of(PromoteSettings, "metric") == Bounds()


def test_no_probes_are_allowed_and_taken(desk: Desk) -> None:
    desk.overrides = [override for override in desk.overrides if not override.startswith("promote.probes")] + ["promote.probes=0"]
    desk.written(RUN_ID)
    applied = desk.promote(RUN_ID, "--apply")
    assert applied.exit_code == 0, applied.output
    assert f"applied: {RUN_ID} serves" in applied.output
    assert "live turns" not in applied.output
    assert desk.promote("--rollback").exit_code == 0
