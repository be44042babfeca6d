"""Parse the overrides of a command line: `KEY=VALUE` sets a key, `~KEY` removes one, as in Hydra.

Some mappings have keys of the user's choice (weights, tolerances, knobs, flags, variables …). Given as a whole, such a mapping replaces the
previous one; a longer key sets one entry of it. A section, whose keys come from the schema, keeps the settings that are not given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import Entries, nearest, rule_of, types_of
from tune_gpu.config.settings_files import check_plain, one_line
from tune_gpu.config.traffic_key import overrides_of

KeyPath = tuple[str, ...]
_SET = re.compile(r"[\w.\-\[\]]+=")
_REMOVE = re.compile(r"~[\w.\-\[\]]+")
_NAMES = ("metric", "term")
"""Kinds of keys that may have dots."""


@dataclass(frozen=True)
class Override:
    """One change of a configuration."""

    key: str
    layer: Mapping[str, Any] | None
    """The value within nested mappings; None to remove the key."""

    @property
    def path(self) -> KeyPath:
        """Return the parts of the key."""
        return tuple(re.findall(r"[^.\[\]]+", self.key))


def is_override(argument: str) -> bool:
    """Return True if an argument of a command changes a setting. Any other argument names a space or a run."""
    return "=" in argument or _REMOVE.fullmatch(argument) is not None


def key_of(override: str) -> str:
    """Return the key that an override sets or removes."""
    return override.removeprefix("~").partition("=")[0]


def last_given(overrides: Sequence[str], key: str, default: str) -> str:
    """Return the text that the overrides set a key to. Return the default if none sets it, or if the last one removes it."""
    given = [override for override in overrides if key_of(override) == key and is_override(override)]
    return given[-1].partition("=")[2] if given and not given[-1].startswith("~") else default


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Return the changes in order. Raise UserError for text that is not an override."""
    return [_parsed(override) for override in overrides_of(overrides)]


def _parsed(override: str) -> Override:
    if _REMOVE.fullmatch(override):
        return Override(override[1:], None)
    if not _SET.match(override):
        raise UserError(f"{override}: not an override. Use key=value, or ~key to remove the key.")
    try:
        layer = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override])))
    except Exception as error:
        raise UserError(f"{override}: {one_line(error)}") from error
    check_plain(layer)
    return Override(override.partition("=")[0], layer)


def typed(overrides: Sequence[Override]) -> dict[str, Any]:
    """Return all that the overrides set, as nested mappings."""
    merged = OmegaConf.merge(*({}, *(override.layer for override in overrides if override.layer is not None)))
    return cast(dict[str, Any], OmegaConf.to_container(merged))


def empty_whole(config: DictConfig, schema: type, layer: Mapping[str, Any], given_at: KeyPath = ()) -> None:
    """Empty every mapping that a layer gives whole, so that merging the layer replaces it.

    Args:
        config: the configuration, which is changed in place.
        schema: the class of its settings.
        layer: nested mappings with checked keys.
        given_at: the key that the layer is the value of; () for a file. Mappings above this key are kept.
    """
    for path in _whole(schema, layer, (), given_at):
        _empty(config, path)


def empty_values(config: DictConfig, schema: type, layer: Mapping[str, Any]) -> None:
    """Empty every setting of one value that a layer gives as a mapping (a distribution), so that merging the layer replaces it."""
    for path in _values(schema, layer, ()):
        _empty(config, path)


def _empty(config: DictConfig, path: KeyPath) -> None:
    node: Any = config
    for key in path[:-1]:
        node = node.get(key) if isinstance(node, DictConfig) else None
    if isinstance(node, DictConfig) and path[-1] in node:
        node[path[-1]] = {}


def _values(schema: Any, layer: Mapping[str, Any], above: KeyPath) -> Iterator[KeyPath]:
    hints = types_of(schema) if is_dataclass(schema) else {}
    for key, value in layer.items():
        if isinstance(value, Mapping):
            path, kind = (*above, str(key)), hints.get(key, _value_kind(schema))
            if key in hints and getattr(rule_of(cast(type, schema), key), "whole", False):
                yield path
            else:
                yield from _values(kind, value, path)


def _whole(schema: Any, layer: Mapping[str, Any], above: KeyPath, given_at: KeyPath) -> Iterator[KeyPath]:
    hints = types_of(schema) if is_dataclass(schema) else {}
    for key, value in layer.items():
        path, kind = (*above, str(key)), hints.get(key, _value_kind(schema))
        if not isinstance(value, Mapping):
            continue
        if is_dataclass(kind) or len(path) < len(given_at):
            yield from _whole(kind, value, path, given_at)
        else:
            yield path


def with_whole_names(schema: Any, layer: Any) -> Any:
    """Return the layer with each metric's or term's name as one key: `objective.weights.llm.latency=1` sets the weight of `llm.latency`.

    Args:
        schema: the class of its settings.
        layer: nested mappings, in which each dot in a name has made a level. Anything but a mapping is returned unchanged.
    """
    if not isinstance(layer, Mapping):
        return layer
    hints = types_of(schema) if is_dataclass(schema) else {}
    found: dict[str, Any] = dict(layer)
    for key, value in layer.items():
        if key in hints:
            wanted = rule_of(schema, key)
            named = isinstance(value, Mapping) and isinstance(wanted, Entries) and wanted.kind in _NAMES
            found[key] = dict(_joined(value)) if named else with_whole_names(hints[key], value)
    return found


def _joined(names: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in names.items():
        if isinstance(value, Mapping) and value:
            yield from _joined(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _value_kind(kind: Any) -> Any:
    """Return the kind of a mapping's values."""
    return get_args(kind)[1] if get_origin(kind) is dict else Any


def remove(config: DictConfig, schema: type, override: Override) -> None:
    """Remove an entry of a mapping, or give a setting its default back.

    Raises:
        UserError: there is no such key (the message names the nearest), or the setting has no default.
    """
    node: Any = config
    kind: Any = schema
    path = override.path
    for depth, key in enumerate(path):
        rest = ".".join(path[depth:])
        if isinstance(node, DictConfig) and not is_dataclass(kind) and rest in node:  # a key may hold dots
            del node[rest]
            return
        known = [str(name) for name in node] if isinstance(node, DictConfig) else []
        if key not in known:
            there = f"the keys are {', '.join(known)}" if known else "there are no keys"
            raise UserError(f"~{override.key}: no such key{nearest(key, known)}. Under {'.'.join(path[:depth]) or 'the top'} {there}.")
        if depth == len(path) - 1:
            _set_default(node, kind, override)
            return
        kind = types_of(kind)[key] if is_dataclass(kind) else _value_kind(kind)
        node = node[key]


def _set_default(node: DictConfig, kind: Any, override: Override) -> None:
    setting = next(each for each in fields(kind) if each.name == override.path[-1])
    if setting.default is MISSING and setting.default_factory is MISSING:
        raise UserError(f"~{override.key}: has no default. Set another value, or remove all of ~{override.key.rpartition('.')[0]}.")
    node[setting.name] = setting.default if setting.default_factory is MISSING else setting.default_factory()
