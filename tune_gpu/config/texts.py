"""Rules of text: names of experiments, units and variables, addresses, lists of cores, and what must stay on one line.

For units and their files: systemd.unit(5) and systemd.syntax(7).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tune_gpu.common.errors import UserError
from tune_gpu.common.process.cores import parse_cores

_LONGEST = 255
_NAME = re.compile(r"[A-Za-z0-9:_\\][A-Za-z0-9:_.\\-]*(@[A-Za-z0-9:_.\\-]+)?")
"""Without its ending; an instance of a template has its own name behind the `@`."""
_BREAK = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
"""Ends a line for systemd, YAML or Python, or is a control character; a tab is none of these."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOLDER = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TAKEN = ("promotions", "winners")
"""Folders beside the experiments' own."""


def check_name(key: str, name: str) -> None:
    """Check the name of an experiment (`name`) or a run, which becomes a folder's. Raise UserError."""
    if not _FOLDER.fullmatch(name) or (key == "name" and name in _TAKEN):
        raise UserError(f"{key}={name}: not a name. Use up to 100 letters, digits, `.`, `_` and `-` (no `..`), and not {' or '.join(_TAKEN)}.")


def check_cores(key: str, cores: str) -> None:
    """Raise UserError for text that is not a list of cores."""
    try:
        parse_cores(cores)
    except ValueError:
        raise UserError(f"{key}={cores}: not a list of cores. Set a list such as 0,2-3.") from None


def check_unit(key: str, unit: str, *, of_systemd: bool) -> None:
    """Raise UserError for text that is not a service's name.

    Args:
        key: the setting that holds it.
        unit: the name.
        of_systemd: whether it needs its ending: systemd reads drop-ins of `vllm.service` from `vllm.service.d` only.
    """
    name = unit.removesuffix(".service")
    good = len(unit) <= _LONGEST and ".." not in unit and _NAME.fullmatch(name)
    if not good:
        raise UserError(
            f"{key}={unit!r}: not the name of a service. Use letters, digits and :_.\\-, an instance behind an @, and .service at the end."
        )
    if of_systemd and name == unit:
        raise UserError(f"{key}={unit}: without its ending systemd would not read what is written for it. Use {unit}.service.")


def check_line(key: str, value: str) -> None:
    """Raise UserError for a value that would not stay on its line in a unit, an env file or a comment."""
    if _BREAK.search(value):
        raise UserError(f"{key}={value!r}: has a line break or a control character. Use a value of one line.")


def check_url(key: str, value: str) -> None:
    """Raise UserError for an address that is not http://HOST:PORT."""
    check_line(key, value)
    try:
        url = urlsplit(value)
        good = url.scheme == "http" and url.hostname is not None and (url.port or 80) > 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"{key}={value}: not an address. Set http://HOST:PORT.")


def check_variable(key: str, name: str) -> None:
    """Raise UserError for an invalid name of an environment variable."""
    if not _VARIABLE.fullmatch(name):
        raise UserError(f"{key}.{name!r}: not the name of a variable. Use letters, digits and _.")
