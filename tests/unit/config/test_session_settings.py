"""Settings of `traffic.kind: sessions`: profiles by name, distributions, and one line for every mistake."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.distributions import Distribution, Drawn, distribution_of
from tune_gpu.config.loader import as_yaml, config_of, load_config
from tune_gpu.config.schema import ExperimentConfig

LOGNORMAL = {"distribution": "lognormal", "median": 2.0, "p95": 12.0}
SESSIONS: dict[str, Any] = {
    "kind": "sessions",
    "arrivals": {"process": "gamma", "sessions_per_min": 6, "burstiness": 0.5},
    "profiles": {
        "home": {"share": 0.7, "system_prompt": {"text": "You are a home."}, "turns": LOGNORMAL, "tool_calls": {"probability": 0.6, "latency_s": 0.2}},
        "phone": {"share": 0.3, "system_prompt": {"tokens": 3000, "per_session_tokens": 400}, "think_s": 1.5, "answer_tokens": "natural"},
    },
    "turn_taking": {"endpoint_ms": 400, "barge_in": 0.06},
    "auxiliary": {"titles": {"per_session": 1, "answer_tokens": 12}},
}


def load(tmp_path: Path, overrides: list[str], device: str | None = None, **more: Any) -> ExperimentConfig:
    path = tmp_path / "space.yaml"
    content: dict[str, Any] = {"name": "s", "services": {"llm": {"kind": "vllm"}}, "parameters": {}, "objective": {"weights": {"llm.ttft": 1.0}}}
    path.write_text(yaml.safe_dump(content | {"traffic": SESSIONS} | more), encoding="utf-8")
    return load_config(str(path), overrides, device, trust=True)


def test_a_space_gives_its_sessions(tmp_path: Path) -> None:
    workload = load(tmp_path, []).workload
    assert workload.has_sessions
    assert list(workload.profiles) == ["home", "phone"]
    assert workload.profiles["home"].turns == LOGNORMAL
    assert (workload.profiles["phone"].think_s, workload.profiles["phone"].answer_tokens) == (1.5, "natural")
    assert workload.auxiliary["titles"].per_session == 1.0


@pytest.mark.parametrize("spelling", ["traffic", "workload"])
def test_an_override_changes_one_setting_of_a_profile(tmp_path: Path, spelling: str) -> None:
    workload = load(tmp_path, [f"{spelling}.profiles.home.share=0.5", f"{spelling}.profiles.home.turns.p95=20", f"{spelling}.profiles.phone.think_s={{distribution: uniform, least: 1, most: 2}}"]).workload
    home, phone = workload.profiles["home"], workload.profiles["phone"]
    assert (home.share, home.turns, home.tool_calls.probability) == (0.5, {**LOGNORMAL, "p95": 20}, 0.6)
    assert phone.think_s == {"distribution": "uniform", "least": 1, "most": 2}


def test_a_distribution_of_a_space_replaces_the_default_as_a_whole(tmp_path: Path) -> None:
    """Numbers of the default's own distribution would not fit another one."""
    think: dict[str, Any] = {"distribution": "uniform", "least": 1, "most": 2}
    profiles = {"home": {"think_s": think}, "phone": {"tool_calls": {"result_tokens": LOGNORMAL, "latency_s": think}, "retrieval": {"chunk_tokens": LOGNORMAL}}}
    workload = load(tmp_path, [], traffic={"kind": "sessions", "profiles": profiles}).workload
    assert workload.profiles["home"].think_s == workload.profiles["phone"].tool_calls.latency_s == think
    assert workload.profiles["phone"].think_s is None


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "TRAFFIC.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    workload = load(tmp_path, [], traffic=example["traffic"]).workload
    assert list(workload.profiles) == ["home", "phone"]
    for override in ("traffic.profiles.home.share=0.5", "traffic.profiles.office={share: 2}", "~traffic.profiles.phone", "traffic.profiles={only: {}}", "traffic.profiles.home.turns.p95=9"):
        assert override.replace("={", "='{") in text
        load(tmp_path, [override], traffic=example["traffic"])


def test_an_override_adds_and_removes_profiles(tmp_path: Path) -> None:
    workload = load(tmp_path, ["traffic.profiles.office={share: 2}", "~traffic.profiles.phone"]).workload
    assert list(workload.profiles) == ["home", "office"]
    assert load(tmp_path, ["traffic.profiles={only: {}}"]).workload.profiles.keys() == {"only"}


def test_an_overlay_replaces_a_distribution_and_keeps_the_rest(tmp_path: Path) -> None:
    overlay = {"cpu": {"traffic": {"profiles": {"home": {"turns": {"distribution": "uniform", "least": 1, "most": 3}}}}}}
    home = load(tmp_path, [], "cpu", devices=overlay).workload.profiles["home"]
    assert (home.turns, home.share) == ({"distribution": "uniform", "least": 1, "most": 3}, 0.7)


def test_a_recorded_configuration_is_read_as_it_was(tmp_path: Path) -> None:
    config = load(tmp_path, [])
    again = config_of(yaml.safe_load(as_yaml(config)))
    assert as_yaml(again) == as_yaml(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("traffic.profils={}", r"traffic\.profils: no such key \(did you mean profiles\?\)"),
        ("traffic.profiles.home.shares=1", r"traffic\.profiles\.home\.shares: no such key \(did you mean share\?\)"),
        ("traffic.profiles.home.share=0", r"traffic\.profiles\.home\.share=0"),
        ("traffic.profiles=[{name: home}]", r"traffic\.profiles=.*a list instead of a mapping"),
        ("traffic.profiles.home.turns=0", r"traffic\.profiles\.home\.turns=0(\.0)?: out of range"),
        ("traffic.profiles.home.turns=few", r"traffic\.profiles\.home\.turns=few: not a number"),
        ("traffic.profiles.home.turns={median: 2, p95: 3}", r"traffic\.profiles\.home\.turns\.distribution: no key distribution"),
        ("traffic.profiles.home.turns={distribution: lognorm, median: 2}", r"lognorm: no such distribution \(did you mean lognormal\?\)"),
        ("traffic.profiles.home.turns={distribution: lognormal, median: 2}", r"turns: lognormal without p95"),
        ("traffic.profiles.home.turns={distribution: lognormal, medain: 2, p95: 3}", r"turns\.medain: not a number of lognormal \(did you mean median\?\)"),
        ("traffic.profiles.home.turns={distribution: lognormal, median: 4, p95: 3}", r"turns\.p95=3: below"),
        ("traffic.profiles.home.turns={distribution: uniform, least: 4, most: 3}", r"turns\.least=4: above"),
        ("traffic.profiles.home.think_s=-1", r"think_s=-1(\.0)?: out of range"),
        ("traffic.profiles.home.answer_tokens=naturally", r"answer_tokens=naturally: not a number \(did you mean natural\?\)"),
        ("traffic.profiles.home.system_prompt.tokens=9", r"system_prompt\.text: traffic\.profiles\.home\.system_prompt\.tokens is given as well"),
        ("traffic.profiles.home.system_prompt.shared_by=all", r"shared_by=all: applies to"),
        ("traffic.profiles.home.format=openai", r"format=openai: not allowed"),
        ("traffic.arrivals.process=poisson", r"arrivals\.burstiness=0\.5: not used by"),
        ("traffic.arrivals={process: times}", r"arrivals\.process=times: no traffic\.arrivals\.file"),
        ("traffic.turn_taking.barge_in=2", r"turn_taking\.barge_in=2: out of range"),
        ("traffic.auxiliary.titles.per_min=3", r"traffic\.auxiliary\.titles: traffic\.auxiliary\.titles\.per_session and .* are given"),
        ("traffic.auxiliary.more={}", r"traffic\.auxiliary\.more: no rate is given"),
        ("traffic.history=mine", r"traffic\.history=mine: not allowed"),
        ("traffic.background_rate_per_s=1", r"traffic\.background_rate_per_s=1: not used by traffic\.kind=sessions"),
        ("traffic.kind=requests", r"traffic\.profiles: not used by traffic\.kind=requests"),
        ("traffic.kind=session", r"traffic\.kind=session: not allowed.*did you mean sessions"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, [override])
    assert "\n" not in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["distribution", "median", "p95", "x"]), inner)))
def test_any_value_is_a_distribution_or_one_line(value: Any) -> None:
    with contextlib.suppress(UserError):
        assert distribution_of(value, "key").name


@pytest.mark.parametrize("value", [3, 0.5, LOGNORMAL, {"distribution": "zipf", "alpha": 1.1, "most": 50}, {"distribution": "poisson", "mean": 3, "most": 9}])
def test_numbers_and_distributions_are_allowed(value: Any) -> None:
    Drawn(Bounds(least=0.1, most=100)).check("key", value)
    assert isinstance(distribution_of(value), Distribution)
