"""Which services a space has: the names are the user's, and `kind` says what each is.

A space in which no service has a `kind` is one of version 1. It has the default pair, also where it lists only one of the two. Where any `kind`
stands, the space has what it lists and nothing else. The schema of a configuration follows from that: one field for each service, whose class
holds the settings of its kind. So everything that reads a schema (unknown keys, types, rules, overrides) serves services of any kind.
"""

from __future__ import annotations

import copy
import json
import keyword
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tune_gpu import metrics
from tune_gpu.common.catalogue import FITNESS_TERMS
from tune_gpu.common.errors import UserError
from tune_gpu.config.kinds import kind_names, load_kind
from tune_gpu.config.rules import one_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.service_settings import PAIR, SpaceServices

Kinds = tuple[tuple[str, str], ...]
"""Name and kind of each service, in the order of the space."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
TAKEN = frozenset(metrics.CATALOGUE) | {
    "activation", "all", "cuda_graphs", "device", "engine_stop", "imports", "items", "kv", "memory_stable", "mps", "neighbours", "non_torch", "services", "stop",
    "tune_gpu", "turn", "weights",
    # What the metrics of an evaluation hold besides the catalogue's:
    FITNESS_TERMS, metrics.ERROR_UNIT, metrics.ENDED_EARLY_PCT, "fitness_windows", "unchecked", "capacity_at_ceiling",
    "capacity_interval", "fitness_by_clip", "fitness_errors", "device_trace", "failed_requests", "n_invalid_windows", "saturation", "sessions", "trials_per_card",
    # The keys of an evaluation's line:
    "asked_after", "candidate_id", "duration_s", "engine", "engine_reused", "failure", "fitness", "fitness_stderr", "generation", "measured_on", "metrics", "n_retries",
    "n_windows", "objectives", "origin", "params", "retries", "schema_version", "started_at", "status", "told_after", "traffic", "transient", "violation", "violations", "wall_s",
}  # fmt: skip
"""Names that mean something else beside the services' in artifacts and metrics: nobody could say which of the two a path means."""


def kinds_of_layers(layers: Sequence[Mapping[str, Any]], removed: Sequence[str] = ()) -> Kinds:
    """Return the services that these layers of a configuration list.

    Args:
        layers: nested mappings; a later one has precedence.
        removed: names of services that the command line removes.

    Raises:
        UserError: a name that no service may have, or a service without a kind beside one with a kind.
    """
    kinds: dict[str, Any] = {}
    for layer in layers:
        services = layer.get("services")
        for name, settings in services.items() if isinstance(services, Mapping) else ():
            given = settings.get("kind") if isinstance(settings, Mapping) else None
            kinds[str(name)] = given if given is not None else kinds.get(str(name))
    if not any(kind is not None for kind in kinds.values()):
        return tuple(PAIR.items())
    for name in removed:
        kinds.pop(name, None)
    for name, kind in kinds.items():
        _check_name(name)
        if kind is None:
            raise UserError(
                f"services.{name}: has no kind, but another service has one. Set services.{name}.kind to one of {', '.join(kind_names())}, or remove it."
            )
    return tuple((name, str(kind)) for name, kind in kinds.items())


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"services.{name}: not a name for a service. Use letters, digits and _, with a letter first, and at most 32 of them.")
    if name in TAKEN:
        raise UserError(f"services.{name}: the name has another meaning in results. Choose another name.")


@cache
def schema_of(kinds: Kinds) -> type[ExperimentConfig]:
    """Return the schema of a configuration with these services. Raise UserError for an unknown kind."""
    if kinds == tuple(PAIR.items()):
        return ExperimentConfig
    services = _services_of(kinds)
    made = make_dataclass("ExperimentConfig", [("services", services, field(default_factory=services))], bases=(ExperimentConfig,))
    return _found_again(made, "ExperimentConfig", kinds)


def defaults_of(schema: type[ExperimentConfig]) -> DictConfig:
    """Return the configuration that a schema has before anything is written over it, for the caller to change."""
    return copy.deepcopy(_structured(cast(type, schema)))


@cache
def _structured(schema: type) -> DictConfig:
    """Return the defaults for `defaults_of` to copy. OmegaConf takes six times as long to inspect the classes as to copy what it has found."""
    return cast(DictConfig, OmegaConf.structured(schema))


@cache
def _services_of(kinds: Kinds) -> type[SpaceServices]:
    own = [(name, _settings_of(kind, f"services.{name}.kind")) for name, kind in kinds]
    made = make_dataclass("Services", [(name, settings, field(default_factory=settings)) for name, settings in own], bases=(SpaceServices,))
    return _found_again(made, "Services", kinds)


def _settings_of(kind: str, key: str) -> Any:
    load_kind(kind, key)  # names the key if there is no such kind
    return _with_kind(kind)


@cache
def _with_kind(kind: str) -> Any:
    made = make_dataclass("Settings", [("kind", str, one_of(kind, kind))], bases=(load_kind(kind).Settings,))
    return _found_again(made, "Settings", ((kind, kind),))


def _found_again(made: type, word: str, kinds: Kinds) -> type:
    """Give a made class a name by which this module finds it again, so that it is pickled by its name.

    Ray's pickler would send the class itself, and unpickling it in this process would change it: its fields would have another `MISSING`.
    """
    made.__module__ = __name__
    made.__name__ = made.__qualname__ = f"{word}_{json.dumps(kinds).encode().hex()}"
    return made


def __getattr__(name: str) -> Any:
    """Return a class that `_found_again` has named, in whatever process it is asked for. Raise AttributeError for any other name."""
    word, _, code = name.partition("_")
    makers: dict[str, Callable[[Kinds], Any]] = {
        "ExperimentConfig": schema_of, "Services": _services_of, "Settings": lambda kinds: _with_kind(kinds[0][0]),
    }  # fmt: skip
    make = makers.get(word)
    try:
        kinds = tuple((str(service), str(kind)) for service, kind in json.loads(bytes.fromhex(code)))
    except ValueError:
        make = None
    if make is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return make(kinds)


def kinds_of(services: SpaceServices) -> Kinds:
    """Return the name and kind of each service of a configuration."""
    return tuple((name, getattr(settings, "kind", None) or PAIR[name]) for name, settings in services.items())


def resolved(services: SpaceServices) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the kind and the plain settings of each service, in the order of the space."""
    for name, kind in kinds_of(services):
        yield name, load_kind(kind), plain_settings(services[name], kind)


def plain_settings(settings: Any, kind: str) -> Any:
    """Return the settings as an object of their kind's own class, without `kind`."""
    own = load_kind(kind).Settings
    if type(settings) is own:
        return settings
    return own(**{each.name: getattr(settings, each.name) for each in fields(own) if each.init})
