"""Settings of a service of kind `external`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import By, one_of, ruled
from tune_gpu.config.texts import check_line
from tune_gpu.services.apis import APIS, NONE
from tune_gpu.services.command.settings import check_path

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def check_address(key: str, url: str) -> None:
    """Raise UserError for text that is not the address of a server: scheme, host, and maybe a port and a path."""
    if not url:
        raise UserError(f"{key}: missing. Set the address of the server, such as http://127.0.0.1:8000.")
    if "@" in url.partition("://")[2].partition("/")[0]:  # not quoted, because it may hold a password
        raise UserError(f"{key}: has a user or a password in it. Put the key into a variable of the environment, and its name into key_env.")
    check_line(key, url)
    if not _is_address(url):
        raise UserError(f"{key}={url}: not an address. Set http://HOST:PORT or https://HOST:PORT.")
    if "?" in url or "#" in url:
        raise UserError(f"{key}: has a query or a fragment. Set the address alone, such as http://127.0.0.1:8000.")
    if url.rstrip("/").endswith("/v1"):
        raise UserError(f"{key}={url}: ends with /v1, which every request adds. Set {url.rstrip('/').removesuffix('/v1')}.")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0) and not re.search(r"\s", url)
    except ValueError:
        return False


def check_key_env(key: str, name: str | None) -> None:
    """Raise UserError for text that is not the name of a variable. It is not quoted, because it may be the key itself."""
    if name is not None and not _VARIABLE.fullmatch(name):
        raise UserError(f"{key}: not the name of a variable. Put the key into a variable of the environment, and set the variable's name here.")


@dataclass
class ExternalSettings:
    """A server that runs already."""

    url: str = ruled("", By(check_address))
    """Its address, without the path of an API."""
    key_env: str | None = ruled(None, By(check_key_env))
    """Name of the variable of this program's environment that holds its API key; null for a server without a key."""
    api: str = one_of(NONE, *APIS)
    """The API that requests use; `none` for a service that is never asked."""
    model: str | None = None
    """Name of the model that a request carries; null asks `/v1/models` for the only one."""
    ignore_eos: bool = True
    """As of the kind `command`."""
    health: str | None = ruled(None, By(check_path))
    """Path that answers with status 200; null tries `/health`, then `/v1/models`."""

    def needs_trust(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that need the user's trust in a space or run of somebody else, and why."""
        yield "url", "requests are sent there"
        if self.key_env is not None:
            yield "key_env", "the value of that variable is sent to the service"
