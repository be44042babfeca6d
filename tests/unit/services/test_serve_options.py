"""Names and values of `extra_args`: what vLLM's parser would make of them, without vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.serve_flags import queries_of, space_of
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.space_check import check_space, overlap
from tune_gpu.services.vllm.kind import KIND
from tune_gpu.services.vllm.options import Kind, Role, options, own_options, problem_of, read_name
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import serve_flags, serve_settings

OPEN = sorted(name for name, each in options().items() if each.role is not Role.SERVER and name not in own_options())
LONG = sorted({*options(), *(f"no-{name}" for name, each in options().items() if each.kind is Kind.SWITCH)})
DEFAULT = serve_flags(VllmSettings())


def refusal(extra: dict[str, Any], *overrides: str) -> str:
    config = load_config("spica_gpu_allocation", list(overrides), "cpu")
    config.services.vllm.extra_args = extra
    with pytest.raises(UserError) as caught:
        check_space(config)
    return str(caught.value)


@given(st.data())
def test_a_flag_of_ours_is_refused_in_every_spelling(data: st.DataObject) -> None:
    """Full names, `no-` forms, beginnings, aliases, underscores and dots."""
    option = options()[data.draw(st.sampled_from(sorted(own_options())))]
    names = [option.name, *(f"no-{option.name}" for _ in [0] if option.kind is Kind.SWITCH), *(each.lstrip("-") for each in option.also)]
    full = data.draw(st.sampled_from(names))
    name = full[: data.draw(st.integers(1, len(full)))]
    others = {read_name(each).option for each in LONG if each.startswith(name)} - {option.name}
    spelled = (name.replace("-", "_") if data.draw(st.booleans()) else name) + data.draw(st.sampled_from(["", ".a"]))
    if name not in LONG or not others or name == full:
        assert problem_of(spelled, data.draw(st.sampled_from([True, 4, "text"])))


@given(st.sampled_from(LONG), st.integers(1, 12))
def test_no_beginning_of_a_flag_is_taken_for_it(name: str, cut: int) -> None:
    beginning = name[:-cut]
    if beginning and beginning not in LONG and not beginning.endswith("-"):
        assert problem_of(beginning, 1) is not None


@pytest.mark.parametrize("name", ["host", "uds", "port", "ssl-keyfile", "root_path", "api-key", "served_model_name", "api-server-count", "grpc-port",
                                  "nnodes", "data-parallel-rank", "device-ids", "config", "asc", "n", "hos", "roo", "conf.a", "host=0.0.0.0", "-tp", "--host",
                                  "seed --host", "", "."])  # fmt: skip
def test_what_changes_where_or_whether_the_server_answers_is_refused(name: str) -> None:
    assert refusal({name: 2}).startswith(f"services.vllm.extra_args.{name}: ")


@pytest.mark.parametrize("name", [name for name, each in options().items() if each.role is Role.SERVER and each.kind in (Kind.SWITCH, Kind.ON)])
def test_a_switch_of_the_server_may_be_off_and_not_on(name: str) -> None:
    assert problem_of(name, True)
    assert problem_of(name, False) is None


@given(st.sampled_from(OPEN), st.sampled_from(["--host", "--host=0.0.0.0", "-0.5", "-O3", "-tp", "-", "a\0b"]), st.booleans())
def test_a_value_that_would_be_read_as_a_flag_is_refused(name: str, value: str, listed: bool) -> None:
    assert problem_of(name, [3, value] if listed else value)


@given(st.dictionaries(st.sampled_from(OPEN), st.one_of(st.booleans(), st.integers(-9, 9), st.sampled_from(["text", "", "a b"]),
                                                        st.lists(st.integers(0, 9), max_size=3), st.dictionaries(st.text(max_size=3), st.integers()))))  # fmt: skip
def test_no_entry_is_a_denial_that_a_loader_drops(extra: dict[str, Any]) -> None:
    accepted = {name: value for name, value in extra.items() if problem_of(name, value) is None}
    written = serve_settings(VllmSettings(extra_args=accepted))
    assert False not in [value for value in written.values() if isinstance(value, bool)]
    for name, value in accepted.items():
        if options()[name].kind is Kind.SWITCH:
            assert written[name if value else f"no-{name}"] is True
        elif options()[name].kind is Kind.ON:
            assert (name in written) == value


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_lies_below_a_dot_is_json(value: Any) -> None:
    extra = {"speculative_config.some_key.low_er": value, "seed": 3}
    assert problem_of("speculative_config.some_key.low_er", value) is None
    flags = serve_flags(VllmSettings(extra_args=extra))[len(DEFAULT) :]
    if value is None:
        assert flags == ["--seed", "3"]
    else:
        name, text, *rest = flags
        assert (name, rest, json.loads(text)) == ("--speculative-config.some_key.low_er", ["--seed", "3"], value)


@given(st.dictionaries(st.sampled_from(OPEN), st.one_of(st.text(), st.floats(), st.integers(), st.lists(st.text(), min_size=1))))
def test_a_file_gives_back_every_value_that_was_written(extra: dict[str, Any]) -> None:
    written = serve_settings(VllmSettings(extra_args=extra))
    again = yaml.safe_load(yaml.safe_dump(written, sort_keys=False))
    assert {name: str(value) for name, value in again.items()} == {name: str(value) for name, value in written.items()}


@pytest.mark.parametrize(("names", "clash"), [
    (["seed", "max-logprobs"], False), (["max-logprobs", "max_logprobs"], True), (["no-enable-lora", "enable_lora"], True),
    (["speculative_config", "speculative-config.method"], True), (["speculative_config.a", "speculative_config.b"], False),
    (["speculative_config.a.b", "speculative_config.a"], True), (["compilation_config.custom_ops+", "compilation_config.custom_ops"], True),
])  # fmt: skip
def test_two_names_of_one_flag_are_refused(names: list[str], clash: bool) -> None:
    assert overlap(*(KIND.entry_path("extra_args", name) for name in names)) == clash


def test_two_knobs_on_one_flag_are_refused_in_whatever_spelling() -> None:
    knobs = ["parameters.a={target: vllm.extra_args.max_logprobs, values: [1, 2]}", "parameters.b={target: vllm.extra_args.max-logprobs, values: [3]}"]
    assert "parameters.b.target=vllm.extra_args.max-logprobs: parameters.a has the same" in refusal({}, *knobs)


def test_a_knobs_spelling_replaces_the_settings() -> None:
    extra = {"no-enable-lora": True, "max-logprobs": 3, "max_logprobs": 5, "enable_lora": True}
    assert serve_flags(VllmSettings(extra_args=extra))[len(DEFAULT) :] == ["--max-logprobs", "5", "--enable-lora"]


def test_a_value_of_a_knob_is_checked_as_the_setting_is() -> None:
    knob = "parameters.a={target: vllm.extra_args.%s, values: [%s]}"
    assert "vllm.extra_args.headless" in refusal({}, knob % ("headless", "false, true"))
    assert "vllm.extra_args.gpu-mem" in refusal({}, knob % ("gpu-mem", "0.5"))
    assert "a switch. Set true or false" in refusal({}, knob % ("enable_lora", "1, 2"))


@pytest.mark.parametrize("text", ["1e3", "yes", "0x10", "12:30:45", "~", "a: b #c", "😀"])
def test_a_text_of_a_benchmarks_case_stays_a_text(text: str) -> None:
    argv = queries_of(space_of({"extra_args": {"revision": text}}))[0]["argv"]
    assert argv[argv.index("--revision") + 1] == text


def test_a_benchmarks_case_with_a_secret_is_refused_as_a_run_is() -> None:
    with pytest.raises(UserError, match="a secret, and every user can read"):
        space_of({"extra_args": {"hf_overrides.my-key": 1}})
