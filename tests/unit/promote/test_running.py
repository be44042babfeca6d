"""What runs is compared with what was measured: recorded answers of vLLM 0.32, generated logs, and servers that run with something else."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_run import FAST, SLOW
from tests.unit.promote.test_apply import BOTH, SERVER, SYSTEMD, Place
from tests.unit.promote.test_apply import place as place
from tune_gpu.services.faster_whisper.observed import description
from tune_gpu.services.observation import (
    UNREAD,
    Choice,
    Reading,
    SettingsComparison,
    compare_settings,
    environment_differences,
    plain_settings,
    same,
)
from tune_gpu.services.vllm import observed as sources
from tune_gpu.services.vllm.numbers import read_count
from tune_gpu.services.vllm.observed import settings_in
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import serve_flags, serve_settings

RECORDED = Path(__file__).parents[2] / "data" / "running"
VERSION = json.loads((RECORDED / "version.json").read_text())["version"]
SWITCHES = ("enable_prefix_caching", "enable_chunked_prefill")


def text(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


def measured(**change: Any) -> dict[str, Any]:
    return yaml.safe_load(text("vllm.yaml")) | change


def recorded(content: dict[str, Any], **change: str) -> SettingsComparison:
    """A file against the recorded answers; some of them are other texts."""
    settings = settings_in(content)
    log = sources.start_log(change.get("log", text("start.log")), change.get("version", VERSION))
    page = sources.cache_config(change.get("metrics", text("metrics.txt")), settings)
    model = sources.served_model(text("models.json"), settings)
    return compare_settings("vllm", settings, [*([log] if log else []), page, model])


def test_a_start_line_longer_than_any_of_vllms_is_not_read() -> None:
    """Each level of braces was read once more; a long line of them was quadratic."""
    assert sources.start_log("non-default args: {'a': " + "{b: " * 200_000 + "}" * 200_001, None) is None


def test_the_answers_of_a_real_engine_agree_with_its_file() -> None:
    found = recorded(measured())
    assert found.differences == ()
    assert found.sources == ("start log", "/metrics", "/v1/models")
    assert found.unread == ()


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("no-enable-prefix-caching", False, "enable_prefix_caching=False, measured with True (start log)"),
        ("max-model-len", 1024, "max_model_len=512, measured with 1024"),
        ("gpu-memory-utilization", 0.2, "gpu_memory_utilization=0.1, measured with 0.2"),
        ("max-num-seqs", 5, "max_num_seqs=4, measured with 5"),
        ("limit-mm-per-prompt.image", "3", "limit_mm_per_prompt.image=2, measured with 3"),
        ("compilation-config.mode", "3", "compilation_config.mode=NONE, measured with 3"),
        ("compilation-config.cudagraph_num_of_warmups", "1", "compilation_config.cudagraph_num_of_warmups=0, measured with 1"),
        ("allowed-origins", '["*"]', "allowed_origins=['*', 'b'], measured with ['*']"),
        ("max-num-batched-tokens", 2048, "max_num_batched_tokens=unset, measured with 2048"),
        ("scheduling-policy", "fcfs", "scheduling_policy=priority, measured with fcfs"),
    ],
)
def test_a_flag_that_runs_with_another_value_is_named(option: str, value: Any, why: str) -> None:
    found = recorded(measured(**{option: value}))
    assert any(why in line for line in found.differences), found


def test_a_flag_that_was_measured_at_its_default_is_named() -> None:
    content = measured()
    del content["max-num-seqs"]
    assert recorded(content).differences == ("vllm runs with max_num_seqs=4, measured without it (start log)",)


def test_caching_that_is_on_is_seen_where_there_is_no_log() -> None:
    on = text("metrics.txt").replace('enable_prefix_caching="False"', 'enable_prefix_caching="True"')
    found = recorded(measured(), log="", metrics=on)
    assert found.differences == ("vllm runs with enable_prefix_caching=True, measured with False (/metrics)",)
    assert "max_num_seqs" in found.unread
    assert "enable_prefix_caching" not in found.unread


@pytest.mark.parametrize(
    ("label", "other"), [('block_size="32"', 'block_size="544"'), ('cache_dtype="auto"', 'cache_dtype="bfloat16"')]
)
def test_what_the_engine_itself_resolves_is_no_difference(label: str, other: str) -> None:
    assert label in text("metrics.txt")
    assert recorded(measured(), metrics=text("metrics.txt").replace(label, other)).differences == ()


@pytest.mark.parametrize("value", ["auto", -1])
def test_a_length_that_the_engine_chooses_is_compared_with_its_log_only(value: Any) -> None:
    automatic = text("start.log").replace("'max_model_len': 512", "'max_model_len': -1")
    assert recorded(measured(**{"max-model-len": value}), log=automatic).differences == ()
    assert recorded(measured(**{"max-model-len": value})).differences == ("vllm runs with max_model_len=512, measured with auto (start log)",)


def test_defaults_of_another_version_of_vllm_are_not_read() -> None:
    content = measured(**{"max-num-batched-tokens": 2048})
    found = recorded(content, version="0.20.0")
    assert found.differences == ()
    assert "max_num_batched_tokens" in found.unread


@pytest.mark.parametrize("cut", ["non-default args: {", "non-default args: {'max_num_seqs': 4, 'block_si", "no such line", ""])
def test_a_log_that_is_cut_off_proves_nothing_about_the_rest(cut: str) -> None:
    found = recorded(measured(), log=cut)
    assert found.differences == ()
    assert "seed" in found.unread


def test_a_value_that_is_no_literal_hides_only_itself() -> None:
    log = "non-default args: {'a': <Mode.X: (1, '}')>, 'seed': 7, 'api_key': '***', 'compilation_config': Config(mode={'x': 1}), 'block_size': 16}"
    read = sources.start_log(log, None)
    assert read is not None
    assert {name for name, value in read.values.items() if value is UNREAD} == {"api-key", "compilation-config"}
    assert (read.values["seed"], read.values["block-size"]) == (7, 16)


PLAIN = st.one_of(st.integers(0, 10**6), st.text("abc{}[]'\", :\\x", min_size=1).filter(lambda text: text[0] not in "[{"))
SETTINGS = st.builds(
    VllmSettings,
    gpu_memory_utilization=st.floats(0.01, 1),
    max_model_len=st.integers(1, 10**6),
    max_num_seqs=st.integers(1, 1000),
    enable_prefix_caching=st.sampled_from([True, False]),
    enable_chunked_prefill=st.sampled_from([True, False]),
    extra_args=st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(),
            "revision": PLAIN,
            "hf_overrides": st.dictionaries(st.text("abc", min_size=1), st.one_of(PLAIN, st.none(), st.booleans(), st.lists(PLAIN)), min_size=1),
            "no-async-scheduling": st.just(True),
            "allowed_origins": st.lists(st.text("*ab", min_size=1), min_size=1),
        },
    ),
)


def arguments_of(settings: VllmSettings) -> dict[str, Any]:
    """As vLLM's parser holds them."""
    extra = dict(settings.extra_args)
    if extra.pop("no-async-scheduling", False):
        extra["async_scheduling"] = False
    own = ("gpu_memory_utilization", "max_model_len", "max_num_seqs", *SWITCHES)
    return {"model_tag": "m", "served_model_name": ["demo"], **{name: getattr(settings, name) for name in own}, **extra}


@given(SETTINGS, st.data())
def test_what_was_rendered_agrees_and_each_change_is_named(settings: VllmSettings, data: st.DataObject) -> None:
    content = yaml.safe_load(yaml.safe_dump(serve_settings(settings)))
    given_settings, arguments = settings_in(content), arguments_of(settings)
    names = {setting.option.replace("-", "_") for setting in given_settings} & arguments.keys()
    changed = data.draw(st.sampled_from(sorted(names)))
    other: Any = not arguments[changed] if isinstance(arguments[changed], bool) else "another"
    for values, differ in ((arguments, set()), (arguments | {changed: other}, {changed})):
        read = sources.start_log(f"(APIServer pid=1) INFO 11-30 [utils.py:293] non-default args: {values}", None)
        assert read is not None
        found = compare_settings("vllm", given_settings, [Reading(read.source, read.values)])
        assert {line.partition("=")[0].removeprefix("vllm runs with ").partition(".")[0] for line in found.differences} == differ


@given(SETTINGS)
def test_the_command_line_as_it_was_measured_agrees(settings: VllmSettings) -> None:
    read = sources.command_line(["vllm", "serve", "model", *serve_flags(settings)])
    assert compare_settings("vllm", settings_in(serve_settings(settings)), [read]).differences == ()


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--max-num-seqs", "8"], "max_num_seqs=8, measured with 4"),
        (["--max_num_seqs=8"], "max_num_seqs=8, measured with 4"),
        (["--enable-prefix-caching"], "enable_prefix_caching=True, measured with False"),
        (["-tp", "2"], "tensor_parallel_size=2, measured with 4"),
        (["--hf-overrides.a", "2"], "hf_overrides.a=2, measured with 1"),
        (["--no-enable-prefix-caching", "--max-num-seqs", "4", "--seed", "-1", "-O3", "--hf-overrides", '{"a": 1}'], None),
    ],
)
def test_flags_of_a_command_line_win_over_the_file(argv: list[str], why: str | None) -> None:
    content = {"max-num-seqs": 4, "no-enable-prefix-caching": True, "tensor-parallel-size": 4, "hf-overrides": '{"a": 1}', "seed": -1}
    found = compare_settings("vllm", settings_in(content), [sources.command_line(["vllm", "serve", *argv])])
    assert [line for line in found.differences if why and why in line] == list(found.differences)
    assert bool(found.differences) is (why is not None)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (0.5, "0.5", True), ("8K", 8192, True), ("32k", 32000, True), ("auto", 4096, False), ("auto", -1, True), (True, "True", True), (False, None, False),
        (1, True, False), ("1", 1, True), (["a"], "a", True), (["a", "b"], ("a", "b"), True), ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, '{"a": 1}', True), ("PIECEWISE", Choice("PIECEWISE", 1), True), (3, Choice("NONE", 0), False), ("half", "float16", False), (4, None, False),
    ],
)  # fmt: skip
def test_values_are_equal_as_vllm_reads_them(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other, read_count) is equal


def test_whispers_description_is_compared_with_its_file() -> None:
    content = {"model": "m", "beam-size": 1, "vad-filter": False, "device": "cpu"}
    body = json.dumps({"name": "w", "device": "cpu", "settings": {"model": "m", "beam_size": 5, "vad_filter": False, "device": "cpu"}})
    found = compare_settings("whisper", plain_settings(content), [description(body)])
    assert found == SettingsComparison(("whisper runs with beam-size=5, measured with 1 (/health)".replace("beam-size", "beam_size"),), (), ("/health",))


def test_a_variable_that_is_another_is_named_and_no_secret_shown() -> None:
    found = environment_differences("vllm", {"A": "1", "B": "", "X_TOKEN": "x"}, {"A": "2", "B": "", "X_TOKEN": "secret"})
    assert found == [
        "vllm runs with A=2, measured with 1 (environment)",
        "vllm runs with another X_TOKEN than measured (environment)",
    ]


def comparisons(place: Place) -> list[dict[str, Any]]:
    lines = map(json.loads, (place.root / "audit.jsonl").read_text().splitlines())
    return [line for line in lines if line["step"] == "compare"]


@BOTH
def test_an_engine_that_runs_with_another_value_is_taken_back(place: Place) -> None:
    if place.config.promote.target == "systemd":
        install_journalctl(place)
    assert place.apply("run-1", SLOW) is None
    assert [line["outcome"] for line in comparisons(place)] == ["ok", "ok"]
    prints = "(APIServer pid=7) INFO 11-30 [utils.py:293] non-default args: {'max_num_seqs': 8, 'enable_prefix_caching': True}"
    back = place.apply("run-2", FAST, little_prints=prints)
    assert "vllm runs with max_num_seqs=8, measured with 4 (start log)" in back.why
    assert "vllm runs with enable_prefix_caching=True, measured without it (start log)" in back.why
    assert back.serving
    assert "base" in place.installed("whisper.yaml"), "what was there before is back"
    comparison = comparisons(place)[-1]
    assert (comparison["service"], comparison["outcome"]) == ("vllm", "differs")
    assert comparison["compared_with"] == "command line, environment, start log"
    assert "gpu_memory_utilization" in comparison["not_readable_here"]


def test_metrics_of_another_setting_take_an_apply_back(place: Place) -> None:
    back = place.apply("run-1", SLOW, little_metrics='vllm:cache_config_info{gpu_memory_utilization="0.5"} 1\n')
    assert back.why == "vllm runs with gpu_memory_utilization=0.5, measured with 0.1 (/metrics)"


def wrapped(place: Place, script: str) -> None:
    """vLLM is started by a script of the user's."""
    wrapper = place.root / "wrapper.sh"
    wrapper.write_text(f"#!/bin/sh\n{script}\n")
    wrapper.chmod(0o755)
    promote = place.config.promote
    place.config = replace(place.config, promote=replace(promote, vllm=replace(promote.vllm, command=[str(wrapper)])))


@BOTH
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('exec {server} "$@" --max-num-seqs 8', "vllm runs with max_num_seqs=8, measured with 4 (command line)"),
        ('cp "$2" {root}/copy.yaml; exec {server} --config {root}/copy.yaml', "vllm runs with --config {root}/copy.yaml, but was measured with"),
        ('export OMP_NUM_THREADS=9; {server} "$@"', "vllm runs with OMP_NUM_THREADS=9, measured with 1 (environment)"),
    ],
)
def test_a_wrapper_that_changes_what_runs_is_seen(place: Place, script: str, why: str) -> None:
    wrapped(place, script.format(server=f"{sys.executable} {SERVER}", root=place.root))
    back = place.apply("run-1", SLOW)
    assert why.format(root=place.root) in back.why


@SYSTEMD
def test_where_there_is_no_journal_the_log_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_gpu.promote.systemd._JOURNALCTL", "no-journalctl-here")
    assert place.apply("run-1", SLOW, little_prints="non-default args: {'max_num_seqs': 8}") is None
    assert comparisons(place)[-1]["compared_with"] == "command line, environment"


def install_journalctl(place: Place) -> None:
    """Stands in for journald: prints the log of the unit whose invocation is asked for."""
    journal = place.root / "bin" / "journalctl"
    journal.write_text(
        '#!/bin/sh\nfor word; do asked=${word#_SYSTEMD_INVOCATION_ID=}; done\nfor log in "$FAKE_SYSTEMD"/*.log; do\n'
        '  unit=$(basename "$log" .log)\n  [ "$(echo "$unit" | md5sum | cut -c 1-32)" = "$asked" ] && cat "$log"\ndone\nexit 0\n'
    )
    journal.chmod(0o755)
