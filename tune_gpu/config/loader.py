"""Load a space's YAML with `key=value` overrides into one checked `ExperimentConfig`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, cast, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.common.own_files import SPACES_FOLDER
from tune_gpu.config.foreign import NeedsTrust, needs_trust, refuse
from tune_gpu.config.languages import unquoted
from tune_gpu.config.overrides import Override, empty_values, empty_whole, parse_overrides, remove, typed, with_whole_names
from tune_gpu.config.rules import check, check_each, check_value, nearest, rule_of, types_of
from tune_gpu.config.schema import ExperimentConfig, RaySettings
from tune_gpu.config.service_settings import PAIR
from tune_gpu.config.settings_files import one_line, read_settings
from tune_gpu.config.space_catalogue import name_defaults
from tune_gpu.config.space_services import Kinds, defaults_of, kinds_of_layers, schema_of
from tune_gpu.config.traffic_key import Spelling
from tune_gpu.config.written_values import read_parameters, with_values_read

DEFAULT_SPACE = "spica_gpu_allocation"
DEVICE_KINDS = ("cpu", "cuda")


def load_config(space: str, overrides: list[str], device_kind: str | None = None, *, trust: bool = False) -> ExperimentConfig:
    """Merge the defaults, the space's YAML, its overlay for the device, and the overrides.

    Args:
        space: a name in `search_spaces/` or a path to a YAML file.
        overrides: `key=value`, with a dotted key.
        device_kind: `cpu` or `cuda`, whose overlay (`devices:` in the YAML) applies; None to apply no overlay.
        trust: whether the user declares that the file is their own.

    Raises:
        UserError: a part is missing, not YAML, unknown, of the wrong type, or not allowed without trust.
    """
    config, wanted = load_with_needs(space, overrides, device_kind)
    if wanted and not trust:
        with config.spelling.errors():
            refuse(find_space(space), wanted)
    return config


def load_run_config(folder: Path, overrides: list[str], *, trust: bool = False) -> ExperimentConfig:
    """Return the configuration of a run, checked as in `load_config`. If a foreign run names another folder, use the folder where it was
    found."""
    path, where = folder / "config.yaml", "run.artifacts_dir"
    config, wanted = load_with_needs(str(path), overrides)
    if any(each.key == where for each in wanted):
        config.run.artifacts_dir = str(folder.parents[1])
    if not trust and (others := [each for each in wanted if each.key != where]):
        refuse(path, others)
    return config


def load_with_needs(space: str, overrides: list[str], device_kind: str | None = None) -> tuple[ExperimentConfig, list[NeedsTrust]]:
    """Return the configuration, and its settings that need the user's trust. Overrides and the user's own files never need it."""
    written = read_settings(find_space(space))
    spelling, changes = Spelling.of(written.as_typed, overrides), parse_overrides(overrides)
    with spelling.errors():
        config = _merged(written.content, changes, device_kind)
        config.spelling = spelling
        return config, [] if written.own else needs_trust(config, typed(changes))


def _merged(content: dict[str, Any], changes: list[Override], device_kind: str | None) -> ExperimentConfig:
    """Return the checked configuration of a space, the overlay for its device, and the changes."""
    overlay = _overlays(content.pop("devices", None), content).get(device_kind or "", {})
    removed = _removed_services(changes)
    kinds = kinds_of_layers([content, overlay, *(change.layer for change in changes if change.layer is not None)], removed)
    if kinds != tuple(PAIR.items()):
        content, overlay = (_without_services(layer, removed) for layer in (content, overlay))
        changes = [change for change in changes if change.layer is not None or change.path not in [("services", name) for name in removed]]
    return _changed(_with_overlay(content, overlay, kinds), changes)


def _removed_services(changes: Sequence[Override]) -> list[str]:
    """Return the services that the command line removes (`~services.NAME`)."""
    return [change.path[1] for change in changes if change.layer is None and change.path[:1] == ("services",) and len(change.path) == 2]


def _without_services(layer: dict[str, Any], removed: Sequence[str]) -> dict[str, Any]:
    services = layer.get("services")
    return {**layer, "services": {name: value for name, value in services.items() if name not in removed}} if isinstance(services, dict) else layer


def _with_overlay(content: dict[str, Any], overlay: dict[str, Any], kinds: Kinds) -> DictConfig:
    """Return the defaults with a space's YAML and the overlay of its device written over them."""
    config = defaults_of(schema_of(kinds))
    _write_over(config, content)
    for key in ("parameters", "baseline"):  # the knobs of an overlay replace those of the space
        if overlay.get(key):
            config[key] = {}
    _write_over(config, overlay, merge=True)
    return config


def _changed(config: DictConfig, overrides: Sequence[Override]) -> ExperimentConfig:
    """Return the checked configuration after applying the overrides in order."""
    for override in overrides:
        if override.layer is None:
            remove(config, _schema(config), override)
        else:
            _write_over(config, override.layer, override.path)
    return _checked(config)


def _schema(config: DictConfig) -> type[ExperimentConfig]:
    """Return the class of a configuration's settings, which depends on its services."""
    return cast(type[ExperimentConfig], OmegaConf.get_type(config))


def config_of(content: Mapping[str, Any]) -> ExperimentConfig:
    """Return a resolved configuration from nested mappings (`dataclasses.asdict`), without checking it again."""
    schema = schema_of(kinds_of_layers([content]))
    config = defaults_of(schema)
    empty_whole(config, schema, content)
    config.merge_with(dict(content))
    return cast(ExperimentConfig, OmegaConf.to_object(config))


def _checked(config: DictConfig) -> ExperimentConfig:
    found = _as_object(config)
    check(found)
    name_defaults(found)
    return found


def _as_object(config: DictConfig) -> ExperimentConfig:
    try:
        found = cast(ExperimentConfig, OmegaConf.to_object(config))
    except Exception as error:
        raise UserError(one_line(error)) from error
    read_parameters(found)
    return found


def _overlays(given: Any, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the checked `devices:` of a space, including overlays for other devices. Raise UserError.

    Args:
        given: the value of `devices`.
        content: the rest of the space, which has the kinds of its services.
    """
    overlays = {} if given is None else given
    if not isinstance(overlays, dict) or not all(isinstance(overlay, (dict, type(None))) for overlay in overlays.values()):
        raise UserError(f"devices: {given!r}: not a mapping. Set a mapping with the settings that differ under the keys cpu and cuda.")
    for kind, overlay in overlays.items():
        if kind not in DEVICE_KINDS:
            raise UserError(f"devices.{kind}: no such device{nearest(str(kind), list(DEVICE_KINDS))}. Use one of {', '.join(DEVICE_KINDS)}.")
        schema = schema_of(kinds_of_layers([content, overlay or {}]))
        _check_keys(schema, with_whole_names(schema, overlay), f"devices.{kind}.")
    return {kind: overlay or {} for kind, overlay in overlays.items()}


def apply_overrides(config: ExperimentConfig, overrides: list[str]) -> ExperimentConfig:
    """Return a configuration with overrides applied. They cannot change the kind of a service. Raise UserError."""
    return _changed(OmegaConf.structured(config), parse_overrides(overrides))


def load_settings(path: Path, allowed: Sequence[str], overrides: list[str]) -> ExperimentConfig:
    """Return the defaults, with a file of settings and then `key=value` written over them.

    Args:
        path: the YAML file.
        allowed: its allowed top-level keys.
        overrides: `key=value`, with a dotted key.

    Raises:
        UserError: a setting is invalid. The message names the file if the error is in it.
    """
    content = read_settings(path, outside_files.SETTINGS).content
    if others := sorted(set(content) - set(allowed)):
        raise UserError(f"{path}: {others[0]}: not allowed in this file. Use one of {', '.join(allowed)} at the top.")
    config = defaults_of(ExperimentConfig)
    try:
        _write_over(config, content)
        check_each(_as_object(config))  # rules that join several settings are checked at the end: the command line may resolve a conflict
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return _changed(config, parse_overrides(overrides))


def _write_over(config: DictConfig, layer: Mapping[str, Any], given_at: tuple[str, ...] = (), *, merge: bool = False) -> None:
    """Write a layer over a configuration.

    Args:
        config: the configuration, which is changed in place.
        layer: nested mappings.
        given_at: the key that the layer is the value of; () for a file.
        merge: whether entries of mappings are kept if the layer does not give them.
    """
    schema = _schema(config)
    layer = with_whole_names(schema, layer)
    _check_keys(schema, layer, "")
    if merge:
        empty_values(config, schema, layer)
    else:
        empty_whole(config, schema, layer, given_at)
    try:
        config.merge_with(with_values_read(layer, schema))
    except Exception as error:  # OmegaConf raises its own errors, and in some cases a TypeError
        raise UserError(one_line(error)) from error


def raw_setting(space: str, overrides: list[str], key: str, default: Any = None) -> Any:
    """Return one setting as given, before the device (and with it the overlay) is known."""
    return _select(read_settings(find_space(space)).content, overrides, key, default)


def _select(content: dict[str, Any], overrides: list[str], key: str, default: Any = None) -> Any:
    layers = OmegaConf.create(content)
    for override in parse_overrides(overrides):
        if override.layer is not None:
            layers.merge_with(override.layer)
        elif OmegaConf.select(layers, override.key) is not None:
            OmegaConf.update(layers, override.key, None)
    found = OmegaConf.select(layers, key)
    return default if found is None else found


def address_to_join(space: str, overrides: list[str], *, trust: bool = False) -> str | None:
    """Return `ray.address`, which is needed before the device is known. Raise UserError if only a foreign space sets it."""
    path = find_space(space)
    content, own, _ = read_settings(path)
    found = _select(content, overrides, "ray.address")
    if found is None:
        return None
    config = ExperimentConfig(ray=RaySettings(address=str(found)))
    if not (own or trust) and (wanted := needs_trust(config, typed(parse_overrides(overrides)))):
        refuse(path, wanted)
    return str(found)


def device_setting(space: str, overrides: list[str]) -> str:
    """Return the setting `device`. Raise UserError if it is invalid."""
    given = raw_setting(space, overrides, "device", "auto")
    check_value(rule_of(ExperimentConfig, "device"), "device", given)
    return str(given)


def find_space(space: str) -> Path:
    """Return the YAML file of a space. Raise UserError, listing the existing names, if there is no such space."""
    path = Path(space).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not os.path.lexists(path):  # a path that is not a regular file is refused when it is read
            raise UserError(f"{space}: no such file")
        return path
    named = SPACES_FOLDER / f"{space}.yaml"
    if not named.is_file():
        names = sorted(p.stem for p in SPACES_FOLDER.glob("*.yaml"))
        raise UserError(f"{space}: no such space{nearest(space, names)}. Use one of {', '.join(names)}, or a path that ends in .yaml.")
    return named


def _check_keys(schema: Any, given: Any, prefix: str) -> None:
    """Raise UserError for an unknown key, and for a value in place of a mapping. The message has the nearest known key; OmegaConf's has
    not."""
    if not isinstance(given, dict):
        state = ": is empty" if given is None else f"={given!r}: not a mapping"
        raise UserError(f"{prefix.rstrip('.')}{state}. Set a mapping of {', '.join(field.name for field in fields(schema))}.")
    hints = types_of(schema)
    known = [field.name for field in fields(schema)]
    for key, value in given.items():
        if key not in known:
            raise UserError(
                f"{prefix}{key}: no such key{nearest(str(key), known)}. Use one of {', '.join(known)}."
            )
        hint = hints[key]
        if is_dataclass(hint):
            _check_keys(hint, value, f"{prefix}{key}.")
            continue
        _check_kind(f"{prefix}{key}", hint, value)
        if get_origin(hint) is dict and is_dataclass(get_args(hint)[1]) and isinstance(value, dict):
            for name, inner in value.items():
                _check_keys(get_args(hint)[1], inner, f"{prefix}{key}.{name}.")


def _check_kind(name: str, hint: Any, value: Any) -> None:
    """Raise UserError for a list in place of a mapping, or a value in place of a list. OmegaConf's message names neither the key nor the
    type."""
    kinds = {get_origin(each) or each for each in (get_args(hint) if isinstance(hint, UnionType) else (hint,))}
    if isinstance(value, bool) and str in kinds and not kinds & {bool, Any}:
        raise UserError(f"{name}: {unquoted(value)}")
    if dict in kinds and isinstance(value, list):
        raise UserError(f"{name}={value}: a list instead of a mapping. Set a mapping.")
    if list in kinds and not isinstance(value, (list, type(None))) and not str(value).startswith("${"):
        raise UserError(f"{name}={value}: not a list. Set a list such as [{value}].")
    if str in {inner for each in (get_args(hint) if isinstance(hint, UnionType) else (hint,)) for inner in get_args(each)[-1:]}:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            if isinstance(one, dict):  # YAML reads {port} as a mapping
                shown = f"{{{', '.join(map(str, one))}}}"
                raise UserError(f"{name}.{key}: a mapping instead of a text. To use a placeholder, put it in quotes: \"{shown}\".")


def as_yaml(config: ExperimentConfig | DictConfig) -> str:
    """Return the resolved configuration as YAML, as it is kept beside the results."""
    return OmegaConf.to_yaml(OmegaConf.structured(config) if is_dataclass(config) else config)
