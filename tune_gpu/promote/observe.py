"""Find out from all available sources whether a deployed service runs with the measured settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import psutil
import yaml

from tune_gpu.promote import sources
from tune_gpu.promote.env_file import read_env
from tune_gpu.promote.running import (
    Reading,
    Setting,
    SettingsComparison,
    compare_settings,
    environment_differences,
    plain_settings,
    vllm_settings,
)
from tune_gpu.promote.target import Target

_Result = TypeVar("_Result")


class Pages(Protocol):
    """Reads the HTTP answers of a service."""

    def page(self, name: str, path: str) -> str:
        """Return the body of a service's answer. Raise NoAnswer or Unhealthy."""


@dataclass(frozen=True)
class Started:
    """How a process was started."""

    argv: Sequence[str]
    env: Mapping[str, str] | None
    """None if it may not be read."""
    sees_our_files: bool
    """True if its paths are the same as this process's; False in a container."""


def server_of(pids: Sequence[int], port: int) -> Started | None:
    """Return the first of these processes that listens on the port, or None if none does (in a container, for example)."""
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if not any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in process.net_connections("tcp")):
                continue
            argv = process.cmdline()
        except (psutil.Error, OSError):
            continue
        # If a process has changed its title, this is one word, and its environment may be overwritten.
        return Started(argv, _tried(process.environ), _mounts(pid) == _mounts("self")) if any(argv[1:]) else None
    return None


def _mounts(pid: int | str) -> str | None:
    return _tried(lambda: os.readlink(f"/proc/{pid}/ns/mnt"))


def observe(name: str, url: str, unit: str, install: Path, content: str, target: Target, pages: Pages) -> SettingsComparison:
    """Compare a running service with its deployed files.

    Args:
        name: `vllm` or `whisper`.
        url: the service's address.
        unit: the unit that runs it.
        install: the folder of its files.
        content: its configuration file, as it was measured.
        target: starts the unit.
        pages: reads the service's answers.
    """
    settings = (vllm_settings if name == "vllm" else plain_settings)(yaml.safe_load(content) or {})
    started = _tried(lambda: server_of(target.pids(unit), urlsplit(url).port or 80))
    readings = [*([sources.command_line(started.argv, of_vllm=name == "vllm")] if started else []), *_readings(name, unit, settings, target, pages)]
    found = compare_settings(name, settings, readings)
    differences, unread, read = list(found.differences), list(found.unread), list(found.sources)
    file = install / f"{name}.yaml"
    if started is None:
        unread.append("command line")
    else:
        read = list(dict.fromkeys(["command line", *read]))
        config = sources.given_config(started.argv)
        if config not in (None, str(file)) and not started.sees_our_files:
            unread.append("--config")
        elif unread and (config is None or not _same_file(config, file)):
            runs = "without --config" if config is None else f"with --config {config}"
            differences.append(f"{name} runs {runs}, but was measured with {file} (command line)")
    if started is None or started.env is None:
        unread.append("environment")
    else:
        read.insert(1, "environment")
        differences += environment_differences(name, read_env(install / f"{name}.env"), started.env)
    return SettingsComparison(tuple(differences), tuple(unread), tuple(read))


def _readings(name: str, unit: str, settings: Sequence[Setting], target: Target, pages: Pages) -> list[Reading]:
    """Return the readings of all sources that answer."""
    if name == "whisper":
        found = [_tried(lambda: sources.whisper_description(pages.page(name, "/health")))]
    else:
        version = _tried(lambda: str(json.loads(pages.page(name, "/version"))["version"]))
        found = [
            _tried(lambda: sources.start_log(target.log(unit) or "", version)),
            _tried(lambda: sources.cache_config(pages.page(name, "/metrics"), settings)),
            _tried(lambda: sources.served_model(pages.page(name, "/v1/models"), settings)),
        ]
    return [reading for reading in found if reading is not None]


def _tried(read: Callable[[], _Result]) -> _Result | None:
    """Return the reading, or None if the source fails. A failed source proves nothing."""
    try:
        return read()
    except Exception:
        return None


def _same_file(given: str, file: Path) -> bool:
    return os.path.realpath(given) == os.path.realpath(file)
