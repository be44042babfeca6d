"""Check a space before anything is planned or started: knobs without effect, and values that no service accepts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from itertools import combinations
from types import UnionType
from typing import Any, get_args

from tune_gpu.common.errors import UserError
from tune_gpu.config.bounds import Bounds
from tune_gpu.config.languages import check_clips
from tune_gpu.config.rules import By, NumberOr, bounds_of, check_value, rule_of, types_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target, mappings_of, written_over
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check
from tune_gpu.services.base import ChecksTogether, Service, SpellsEntries
from tune_gpu.services.registry import services_of


def check_space(config: ExperimentConfig) -> SearchSpace:
    """Return the space of a configuration. Raise UserError if the space, its baseline or `services` is invalid."""
    with config.spelling.errors():
        return _checked_space(config)


def _checked_space(config: ExperimentConfig) -> SearchSpace:
    space = SearchSpace.from_specs(config.parameters)
    services = {service.name: service for service in services_of(config.services)}
    for parameter in space.parameters.values():
        for number, value in enumerate(values_to_check(parameter)):
            if not number:
                parameter.target.check(parameter.name, config.services)
            check_setting(services[parameter.target.service], parameter.target, value, f"parameters.{parameter.name}: ")
    _check_targets(space, services)
    for service in services.values():
        for each in fields(service.settings):
            value = getattr(service.settings, each.name)
            for entry, given in value.items() if isinstance(value, dict) else ():
                service.kind.check_entry(f"services.{service.name}.{each.name}.{entry}", each.name, str(entry), given)
            if not isinstance(value, (dict, list)):
                check_setting(service, Target(service.name, each.name), value, "services.")
    _check_together(config, space, services.values())
    _check_entries_apart(services.values())
    if config.baseline:
        try:
            space.check(config.baseline)
        except UserError as error:
            raise UserError(f"baseline.{error}") from error
    return space


def _check_entries_apart(services: Iterable[Service]) -> None:
    """Raise UserError for two entries of one mapping that set the same."""
    for service in services:
        for setting in mappings_of(service.settings):
            for one, other in combinations(getattr(service.settings, setting), 2):
                if overlap(_entry_path(service, setting, one), _entry_path(service, setting, other)):
                    raise UserError(f"services.{service.name}.{setting}.{other}: {one} sets the same flag. Remove one of them.")


def _entry_path(service: Service, setting: str, entry: str) -> tuple[str, ...]:
    return service.kind.entry_path(setting, entry) if isinstance(service.kind, SpellsEntries) else (entry,)


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return True if both paths are the same, or one is that of a part of the other."""
    shorter, longer = sorted((one, other), key=len)
    return longer[: len(shorter)] == shorter


def settings_in_use(config: ExperimentConfig, space: SearchSpace, target: Target) -> list[Any]:
    """Return all values that a setting may have in this experiment: those of its knobs, and its own value unless a knob always replaces
    it."""
    knobs = [parameter for parameter in space.parameters.values() if parameter.target == target]
    own = [] if any(not knob.when for knob in knobs) else [getattr(config.services[target.service], target.setting)]
    return own + [value for knob in knobs for value in values_to_check(knob)]


def services_in_use(config: ExperimentConfig, space: SearchSpace) -> Iterator[Service]:
    """Yield every service as configured, and once with each value of each of its knobs."""
    for service in services_of(config.services):
        yield service
        for parameter in space.parameters.values():
            if parameter.target.service == service.name:
                for value in values_to_check(parameter):
                    yield replace(service, settings=written_over(service.settings, [(parameter.target, value)]))


def check_setting(service: Service, target: Target, value: Any, where: str = "") -> None:
    """Raise UserError for a value of the wrong type, or one that breaks the setting's rule."""
    setting, name = target.setting, f"{where}{target}"
    if target.entry is not None:
        service.kind.check_entry(name, setting, target.entry, value)
        if setting == "env" and target.entry in service.kind.held:
            raise UserError(
                f"{name}: every evaluation sets this variable itself, so a parameter has no effect. To set it for the deployment, use services.{target.service}.env."
            )
        return
    schema: type = type(service.settings)
    rule = rule_of(schema, setting)
    hint = types_of(schema)[setting]
    is_word = isinstance(rule, NumberOr) and isinstance(value, str)
    may_be_null = value is None and type(None) in get_args(hint)
    if rule is not None and not may_be_null and (isinstance(rule, By) or is_word):
        rule.check(name, value)  # before the type, because this message names the allowed values
    if not is_word:
        _check_type(name, hint, value, bounds_of(schema, setting))
    check_value(rule, name, value)
    if isinstance(value, str) and value.startswith("-"):
        raise UserError(f"{name}={value}: would be read as a flag on a command line. Set a value that does not begin with a dash.")




def _check_together(config: ExperimentConfig, space: SearchSpace, services: Iterable[Service]) -> None:
    """Raise UserError if the language of the clips is unknown, or if values of a service cannot be combined."""
    for service in services:
        name = service.name
        if hasattr(service.settings, "language"):
            check_clips(config.workload, name, varies=any(knob.target == Target(name, "language") for knob in space.parameters.values()))
        if isinstance(service.kind, ChecksTogether):
            service.kind.check_together(name, partial(_in_use, config, space, name))


def _in_use(config: ExperimentConfig, space: SearchSpace, service: str, setting: str) -> list[Any] | None:
    """Return what `InUse` says: with conditions, two values may never be combined."""
    target = Target(service, setting)
    conditional = any(knob.when for knob in space.parameters.values() if knob.target == target)
    return None if conditional else settings_in_use(config, space, target)


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


def _check_targets(space: SearchSpace, services: Mapping[str, Service]) -> None:
    """Raise UserError for two knobs on one setting: one would hide the other, and one deployment would count as several configurations."""
    for one, other in combinations(space.parameters.values(), 2):
        if _same(one.target, other.target, services) and not _apart(one, other):
            raise UserError(f"parameters.{other.name}.target={other.target}: parameters.{one.name} has the same. Remove one, or give them a `when` that keeps them apart.")


def _same(one: Target, other: Target, services: Mapping[str, Service]) -> bool:
    """Return whether two targets are the same setting, or the same entry of a mapping in two spellings."""
    if (one.service, one.setting) != (other.service, other.setting) or one.entry is None or other.entry is None:
        return one == other
    return overlap(*(_entry_path(services[each.service], each.setting, each.entry or "") for each in (one, other)))


def _apart(one: Parameter, other: Parameter) -> bool:
    """Return whether a condition of one excludes a condition of the other."""
    wanted = dict(other.when)
    return any(parent in wanted and not any(value in wanted[parent] for value in values) for parent, values in one.when)
