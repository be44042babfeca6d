"""The env files of the deployed services, and the keys in them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tune_gpu.common.errors import UserError

if TYPE_CHECKING:  # a shell that starts services reads env files only, and must not import the configuration
    from tune_gpu.config.schema import PromoteSettings, ServiceTarget

SECRETS = "secrets.env"
"""File in the install folder, written by the owner of the keys. The units read it, and `promote` reads the two keys for its probes."""


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


def key_of(settings: PromoteSettings, service: str) -> str | None:
    """Return the key that a deployed service requires. The secret in the install folder comes before this process's variable, because the
    unit reads that file."""
    where: ServiceTarget = getattr(settings, service)
    path = Path(settings.install_dir).expanduser() / SECRETS
    try:
        secrets = read_env(path)
    except FileNotFoundError:
        secrets = {}
    except PermissionError:  # not needed to write a promotion for review
        secrets = {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Write one NAME=value a line.") from error
    return secrets.get(where.key_env) or os.environ.get(where.key_env) or None


def require_keys(settings: PromoteSettings) -> None:
    """Raise UserError for the first service without a key. Such a service would answer everybody."""
    for service in ("whisper", "vllm"):
        name = getattr(settings, service).key_env
        if not name:
            raise UserError(f"promote.{service}.key_env: is empty. Name the variable that holds the key of {service}.")
        if not key_of(settings, service):
            path = Path(settings.install_dir).expanduser() / SECRETS
            raise UserError(f"promote.{service}.key_env={name}: the key is missing, so {service} would answer everybody. Put {name}=KEY into {path}.")
