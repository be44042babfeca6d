"""A parameter's target is parsed once, checked, and written over the settings without changing them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig, ParameterSpec, Services
from tune_gpu.config.targets import Target, settings_with
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.vllm.settings import VllmSettings

OWN = [Target(service, each.name) for service, kind in (("vllm", VllmSettings), ("whisper", WhisperSettings)) for each in fields(kind) if each.name not in ("extra_args", "env")]
ENTRIES = [Target("vllm", "extra_args", "seed"), Target("vllm", "extra_args", "a.b"), Target("vllm", "env", "A"), Target("whisper", "env", "A.B")]


def config_of(*targets: Target) -> ExperimentConfig:
    config = ExperimentConfig(services=Services(VllmSettings(extra_args={"seed": 1}, env={"KEEP": "1"}), WhisperSettings(env={"KEEP": "2"})))
    config.parameters = {f"p{number}": ParameterSpec(target=str(target), values=[1]) for number, target in enumerate(targets)}
    return config


@pytest.mark.parametrize("target", [*OWN, *ENTRIES], ids=str)
def test_every_settings_text_parses_to_itself_and_is_known(target: Target) -> None:
    assert Target.parse(str(target)) == target
    target.check("p", Services())


@pytest.mark.parametrize("text", ["vllm", "vllm.", "vllm.nothing", "whisper.extra_args.seed", "vllm.__dict__", "vllm.dtype.x", "vllm.kind"])
def test_a_target_that_is_no_setting_is_refused_by_name(text: str) -> None:
    service = text.partition(".")[0]
    with pytest.raises(UserError, match=rf"parameters\.p\.target=.*: no such setting.*\. Use one of {service}\.model, .*{service}\.env"):
        Target.parse(text).check("p", Services())


@pytest.mark.parametrize("text", ["", "nobody.model", "model", "wisper.model"])
def test_a_target_of_no_service_is_refused_with_the_services(text: str) -> None:
    with pytest.raises(UserError, match=r"parameters\.p\.target=.*: no such service.*\. Use a setting of one of vllm, whisper"):
        Target.parse(text).check("p", Services())


@pytest.mark.parametrize("text", ["vllm.extra_args", "vllm.extra_args.", "whisper.env"])
def test_a_mapping_is_no_target_as_a_whole(text: str) -> None:
    with pytest.raises(UserError, match=r"parameters\.p\.target=\w+\.\w+: it is a mapping\. Name one entry of it, \w+\.\w+\.NAME"):
        Target.parse(text).check("p", Services())


@given(st.lists(st.sampled_from([*OWN, *ENTRIES]), unique=True))
def test_only_the_targeted_settings_change_and_only_in_the_copy(targets: list[Target]) -> None:
    config = config_of(*targets)
    before = deepcopy(config)
    services = settings_with(config, {f"p{number}": number for number in range(len(targets))})
    for target in [*OWN, *ENTRIES]:
        found, own = getattr(getattr(services, target.service), target.setting), getattr(getattr(config.services, target.service), target.setting)
        wanted = targets.index(target) if target in targets else None
        if target.entry is None:
            assert found == (own if wanted is None else wanted)
        elif wanted is not None:
            assert found[target.entry] == (str(wanted) if target.setting == "env" else wanted)
    assert (services.vllm.env["KEEP"], services.whisper.env["KEEP"]) == ("1", "2")
    services.vllm.env["LATER"] = services.whisper.env["LATER"] = services.vllm.extra_args["later"] = "3"
    assert config == before, "the copy shares no mapping with the configuration"
