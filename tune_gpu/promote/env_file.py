"""The env files of the deployed services, and the keys in them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tune_gpu.common.errors import UserError

if TYPE_CHECKING:  # shells that start services read env files and no configuration
    from tune_gpu.config.schema import PromoteSettings, ServiceTarget

SECRETS = "secrets.env"
"""In the install folder, written by whoever owns the keys; the units read it, and `promote` reads the two keys for its probes."""


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of a file of NAME=value lines, quoted as for a shell. Raise OSError or ValueError."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name.strip()] = "".join(shlex.split(value)) if value else ""
    return found


def secrets_beside(env_file: Path) -> dict[str, str]:
    """Return the secrets in the install folder of a service's env file; none without such a file."""
    path = env_file.with_name(SECRETS)
    return read_env(path) if path.exists() else {}


def key_of(settings: PromoteSettings, service: str) -> str | None:
    """Return the key that a deployed service asks for: the install folder's secret before this process's variable, because the unit reads
    that one."""
    where: ServiceTarget = getattr(settings, service)
    path = Path(settings.install_dir).expanduser() / SECRETS
    try:
        secrets = read_env(path)
    except FileNotFoundError:
        secrets = {}
    except PermissionError:  # who only writes a promotion for review need not be able to read it
        secrets = {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Write one NAME=value a line.") from error
    return secrets.get(where.key_env) or os.environ.get(where.key_env) or None


def require_keys(settings: PromoteSettings) -> None:
    """Raise UserError for the first service without a key: it would serve everybody."""
    for service in ("whisper", "vllm"):
        name = getattr(settings, service).key_env
        if not name:
            raise UserError(f"promote.{service}.key_env: is empty. Name the variable that holds the key of {service}.")
        if not key_of(settings, service):
            path = Path(settings.install_dir).expanduser() / SECRETS
            raise UserError(f"promote.{service}.key_env={name}: no such key; {service} would serve everybody. Put {name}=KEY into {path}.")
