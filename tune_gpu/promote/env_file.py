"""The env files of the deployed services, and the keys in them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_gpu.common.errors import UserError

if TYPE_CHECKING:  # a shell that starts services reads env files only, and must not import the configuration
    from tune_gpu.promote.places import Place
    from tune_gpu.promote.render import DeployedService

SECRETS = "secrets.env"
"""File in the install folder, written by the owner of the keys. The units read it, and `promote` reads the keys for its probes."""
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Addresses that nobody outside of this machine reaches."""


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a file of NAME=value lines, quoted as for a shell. Raise OSError or ValueError."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name.strip()] = "".join(shlex.split(value)) if value else ""
    return found


def secrets_beside(env_file: Path) -> dict[str, str]:
    """Return the secrets in the install folder of a service's env file, or an empty mapping without such a file."""
    path = env_file.with_name(SECRETS)
    return read_env(path) if path.exists() else {}


def key_of(place: Place, install: Path) -> str | None:
    """Return the key that a deployed service requires, or None. The secret in the install folder comes before this process's variable, because
    the unit reads that file."""
    if not place.key_env:
        return None
    path = install / SECRETS
    try:
        secrets = read_env(path)
    except FileNotFoundError:
        secrets = {}
    except PermissionError:  # not needed to write a promotion for review
        secrets = {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Write one NAME=value a line.") from error
    return secrets.get(place.key_env) or os.environ.get(place.key_env) or None


def require_keys(services: Sequence[DeployedService], install: Path) -> None:
    """Raise UserError for the first service that would answer everybody: without its key, or without any key at an address that others reach."""
    for service in services:
        place, name = service.place, service.name
        if not place.key_env and service.deployable.key_variables:
            raise UserError(f"{place.key}.key_env: is empty. Name the variable that holds the key of {name}.")
        if not place.key_env and place.address[0] not in _OWN_HOSTS:
            raise UserError(
                f"{place.key}.url={place.url}: {name} asks for no key, so it would answer everybody. Use an address of 127.0.0.1, or a server with a key."
            )
        if place.key_env and not key_of(place, install):
            variable = place.key_env
            raise UserError(f"{place.key}.key_env={variable}: the key is missing, so {name} would answer everybody. Put {variable}=KEY into {install / SECRETS}.")
