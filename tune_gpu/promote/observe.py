"""Find out from all available sources whether a deployed service runs with the measured settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from tune_gpu.promote.env_file import read_env
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.target import Target
from tune_gpu.services.command_lines import SOURCE, given_config
from tune_gpu.services.observation import ReportsSettings, SettingsComparison, compare_settings, environment_differences, tried


class Pages(Protocol):
    """Reads the HTTP answers of a service."""

    def page(self, place: Place, path: str) -> str:
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
        return Started(argv, tried(process.environ), _mounts(pid) == _mounts("self")) if any(argv[1:]) else None
    return None


def _mounts(pid: int | str) -> str | None:
    return tried(lambda: os.readlink(f"/proc/{pid}/ns/mnt"))


@dataclass(frozen=True)
class _Running:
    """A deployed service that runs, as its kind asks it."""

    place: Place
    started: Started | None
    target: Target
    pages: Pages

    @property
    def argv(self) -> Sequence[str] | None:
        """Return its command line, or None."""
        return self.started.argv if self.started else None

    def log(self) -> str:
        """Return what it has printed, or nothing."""
        return self.target.log(self.place.unit) or ""

    def page(self, path: str) -> str:
        """Return the body of its answer."""
        return self.pages.page(self.place, path)


def observe(service: DeployedService, install: Path, target: Target, pages: Pages) -> SettingsComparison:
    """Compare a running service with its deployed files.

    Args:
        service: as it was deployed.
        install: the folder of its files.
        target: starts the unit.
        pages: reads the service's answers.
    """
    place = service.place
    started = tried(lambda: server_of(target.pids(place.unit), place.address[1]))
    found = _of_kind(service, _Running(place, started, target, pages))
    differences, unread, read = list(found.differences), list(found.unread), list(found.sources)
    if started is None or not _has_words(started.argv, service.deployable.words):
        unread.append(SOURCE)
    else:
        read = list(dict.fromkeys([SOURCE, *read]))
    if started is not None and service.config_name is not None:
        file, config = install / service.config_name, given_config(started.argv)
        if config not in (None, str(file)) and not started.sees_our_files:
            unread.append("--config")
        elif unread and (config is None or not _same_file(config, file)):
            runs = "without --config" if config is None else f"with --config {config}"
            differences.append(f"{service.name} runs {runs}, but was measured with {file} ({SOURCE})")
    if started is None or started.env is None:
        unread.append("environment")
    else:
        read.insert(read.index(SOURCE) + 1 if SOURCE in read else 0, "environment")
        differences += environment_differences(service.name, read_env(install / f"{service.name}.env"), started.env)
    return SettingsComparison(tuple(differences), tuple(unread), tuple(read))


def _of_kind(service: DeployedService, running: _Running) -> SettingsComparison:
    """Return what the service itself reports, if its kind knows how to ask for it."""
    kind = service.service.kind
    if not isinstance(kind, ReportsSettings):
        return SettingsComparison((), (), ())
    observed = kind.observed(service.config, running)
    return compare_settings(service.name, observed.settings, observed.readings)


def _has_words(argv: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether a command line ends with these arguments. That of a program behind a wrapper need not, which proves nothing."""
    return not words or tuple(argv[-len(words) :]) == tuple(words)


def _same_file(given: str, file: Path) -> bool:
    return os.path.realpath(given) == os.path.realpath(file)
