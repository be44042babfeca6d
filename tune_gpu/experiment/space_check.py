"""Checks a space before anything is planned or started: knobs without effect, and values that no service takes."""

from __future__ import annotations

from itertools import combinations
from types import UnionType
from typing import Any, get_args, get_type_hints

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.languages import check_clips, check_models
from tune_gpu.config.rules import By, NumberOr, bounds_of, check_value, rule_of
from tune_gpu.config.schema import ExperimentConfig, VllmSettings, WhisperSettings
from tune_gpu.config.serve_options import conflict_of, overlap, problem_of, read_name
from tune_gpu.config.targets import Target
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check
from tune_gpu.services.faster_whisper import service as whisper
from tune_gpu.services.vllm import setup as vllm_setup

_SETTINGS = {"vllm": VllmSettings, "whisper": WhisperSettings}
_HINTS = {service: get_type_hints(settings) for service, settings in _SETTINGS.items()}
_LANGUAGE, _SPEECH_MODEL = Target("whisper", "language"), Target("whisper", "model")
_HELD = {"vllm": vllm_setup.HELD, "whisper": whisper.HELD}
_NEVER = {"vllm": vllm_setup.NEVER, "whisper": {}}


def check_space(config: ExperimentConfig) -> SearchSpace:
    """Return the space of a configuration. Raise UserError if it is invalid with its baseline and with `services`."""
    space = SearchSpace.from_specs(config.parameters)
    for parameter in space.parameters.values():
        for number, value in enumerate(values_to_check(parameter)):
            if not number:
                parameter.target.check(parameter.name)
            check_setting(parameter.target, value, f"parameters.{parameter.name}: ")
    _check_targets(space)
    for service, hints in _HINTS.items():
        for name in hints.keys() - {"extra_args", "env"}:
            check_setting(Target(service, name), getattr(getattr(config.services, service), name), "services.")
    _check_spoken(config, space)
    _check_given(config)
    if config.baseline:
        try:
            space.check(config.baseline)
        except UserError as error:
            raise UserError(f"baseline.{error}") from error
    return space


def _check_given(config: ExperimentConfig) -> None:
    """Raise UserError for invalid entries of `services` below `extra_args` and `env`."""
    extra = config.services.vllm.extra_args
    for flag, value in extra.items():
        _check_flag("services.", flag, value)
    if found := conflict_of(extra):
        raise UserError(f"services.vllm.extra_args.{found[1]}: {found[0]} sets the same flag. Remove one of them.")
    for service, never in _NEVER.items():
        for name in getattr(config.services, service).env:
            if name in never:
                raise UserError(f"services.{service}.env.{name}: {never[name]}. Remove it.")


def settings_in_use(config: ExperimentConfig, space: SearchSpace, target: Target) -> list[Any]:
    """Return every value that a setting may have in this experiment: those of its knobs, and its own unless one knob always replaces it."""
    knobs = [parameter for parameter in space.parameters.values() if parameter.target == target]
    own = [] if any(not knob.when for knob in knobs) else [getattr(getattr(config.services, target.service), target.setting)]
    return own + [value for knob in knobs for value in values_to_check(knob)]


def check_setting(target: Target, value: Any, where: str = "") -> None:
    """Raise UserError for a value of the wrong type, or one that its rule refuses."""
    service, setting, name = target.service, target.setting, f"{where}{target}"
    if target.entry is not None:  # vLLM judges what lies below `extra_args` and `env`
        if setting == "extra_args":
            _check_flag(where, target.entry, value)
        else:
            _check_variable(where, service, target.entry)
        return
    rule = rule_of(_SETTINGS[service], setting)
    is_word = isinstance(rule, NumberOr) and isinstance(value, str)
    if rule is not None and (isinstance(rule, By) or is_word):
        rule.check(name, value)  # for a value of the wrong type it also names the values that are allowed
    if not is_word:
        _check_type(name, _HINTS[service][setting], value, bounds_of(_SETTINGS[service], setting))
    check_value(rule, name, value)
    if isinstance(value, str) and value.startswith("-"):
        raise UserError(f"{name}={value}: a command line takes it for a flag. Give a value that does not begin with a dash.")


def _check_spoken(config: ExperimentConfig, space: SearchSpace) -> None:
    """Raise UserError if the language of the clips is unknown, or a model does not know Whisper's language."""
    knobs = [knob for knob in space.parameters.values() if knob.target in (_LANGUAGE, _SPEECH_MODEL)]
    check_clips(config.workload.audio, varies=any(knob.target == _LANGUAGE for knob in knobs))
    if not any(knob.when for knob in knobs):  # conditions may keep them apart
        check_models(settings_in_use(config, space, _SPEECH_MODEL), settings_in_use(config, space, _LANGUAGE))


def _check_flag(where: str, flag: str, value: Any) -> None:
    if problem := problem_of(flag, value):
        raise UserError(f"{where}vllm.extra_args.{flag}: {problem}")


def _check_variable(where: str, service: str, name: str) -> None:
    """Raise UserError for a variable that every evaluation sets itself: such a knob has no effect."""
    if name in _NEVER[service]:
        raise UserError(f"{where}{service}.env.{name}: {_NEVER[service][name]}. Remove it.")
    if name in _HELD[service]:
        raise UserError(f"{where}{service}.env.{name}: every evaluation sets it itself, so as a parameter it has no effect. For the deployment set it under services.{service}.env.")


def _check_type(name: str, hint: Any, value: Any, bounds: Bounds) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kind = next(each for each in kinds if each is not type(None))
    if value is None and type(None) in kinds:
        return
    if kind is bool and not isinstance(value, bool):
        raise UserError(f"{name}={value}: a switch. Set true or false.")
    if kind is str and not isinstance(value, str):
        raise UserError(f"{name}={value}: not text. Set text, in quotes if YAML reads it as something else.")
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        ranged = ", and `integer: true` for a range" if isinstance(value, float) else ""
        raise UserError(f"{name}={value}: not a whole number. Set whole numbers{ranged}.")
    if kind is float and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise UserError(f"{name}={value}: not a number. Set a number {bounds.allowed}".rstrip() + ".")


def _check_targets(space: SearchSpace) -> None:
    """Raise UserError for two knobs on one setting: one would hide the other, and one deployment would count as several configurations."""
    for one, other in combinations(space.parameters.values(), 2):
        if _same(one.target, other.target) and not _apart(one, other):
            raise UserError(f"parameters.{other.name}.target={other.target}: parameters.{one.name} has the same. Remove one, or give them a `when` that keeps them apart.")


def _same(one: Target, other: Target) -> bool:
    """Return whether two targets are one setting; a flag of vLLM has several spellings."""
    if one.setting == other.setting == "extra_args" and one.entry is not None and other.entry is not None:
        return overlap(read_name(one.entry), read_name(other.entry))
    return one == other


def _apart(one: Parameter, other: Parameter) -> bool:
    """Return whether a condition of one excludes a condition of the other."""
    wanted = dict(other.when)
    return any(parent in wanted and not any(value in wanted[parent] for value in values) for parent, values in one.when)
