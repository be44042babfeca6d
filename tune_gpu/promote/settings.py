"""Read the settings of `promote` from the system's own file and the command line, never from a run's folder.

A run's folder may come from anybody, and root installs what `promote` decides. If `promote` read a command, a unit, a folder or a threshold
from the run's own `config.yaml`, the author of that file would decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import apply_overrides, load_settings
from tune_gpu.config.overrides import last_given
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import name_defaults
from tune_gpu.promote.ownership import check_own

SYSTEM_FILE = Path("/etc/tune-gpu/promote.yaml")
"""File with `promote: {…}` and `confirm: {…}`, as in a space. It is read if it exists."""
_KINDS = ("promote", "confirm")


def trusted_settings(overrides: list[str], file: str | None = None) -> ExperimentConfig:
    """Return the defaults, overridden by the system's file and then by the command line. Callers use only `promote` and `confirm`.

    Args:
        overrides: `key=value` of the command line.
        file: another file of settings; None for the system's, if it exists.

    Raises:
        UserError: others can change the file, or a setting is invalid.
    """
    path = SYSTEM_FILE if file is None else Path(file).expanduser()
    if file is None and not _is_there(path):
        return apply_overrides(ExperimentConfig(), overrides)
    check_own(str(path), path)
    return load_settings(path, _KINDS, overrides)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Run promote as a user that may read it, or give --settings FILE.") from error


def artifacts_of(overrides: list[str]) -> str:
    """Return the folder of runs that the command line sets, or the default."""
    return last_given(overrides, "run.artifacts_dir", "artifacts")


def with_trusted(of_run: ExperimentConfig, trusted: ExperimentConfig) -> ExperimentConfig:
    """Return a run's configuration with the trusted settings for deciding and installing. The metric of the confirmation stays the run's
    own. Default names of metrics are those of the run's services."""
    made = replace(of_run, promote=replace(trusted.promote), confirm=replace(trusted.confirm, metric=of_run.confirm.metric))
    name_defaults(made)
    return made


def ignored(of_run: ExperimentConfig, trusted: ExperimentConfig) -> list[str]:
    """Return the run's own settings that differ from the trusted ones, as `key=value`. Unchanged defaults do not count."""
    default, trusted = with_trusted(of_run, ExperimentConfig()), with_trusted(of_run, trusted)
    return [
        f"{kind}.{name}={value}"
        for kind, names in (("promote", None), ("confirm", ("confidence", "tolerances")))
        for name, value, usual, ours in _values(getattr(of_run, kind), getattr(default, kind), getattr(trusted, kind))
        if (names is None or name in names) and value not in (usual, ours)
    ]


def _values(*settings: Any, prefix: str = "") -> Iterator[tuple[Any, ...]]:
    """Yield the name of each setting, with its value in each of the objects."""
    for field in fields(settings[0]):
        values = [getattr(each, field.name) for each in settings]
        if is_dataclass(values[0]):
            yield from _values(*values, prefix=f"{prefix}{field.name}.")
        elif isinstance(values[0], dict) and is_dataclass(kind := type(next(iter(values[0].values()), None))):
            for name in values[0]:
                yield from _values(*(each.get(name, kind()) for each in values), prefix=f"{prefix}{field.name}.{name}.")
        else:
            yield (prefix + field.name, *values)
