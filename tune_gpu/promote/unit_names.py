"""What may stand in a unit's name and in the lines of its files: the rules of systemd.unit(5) and systemd.syntax(7)."""

from __future__ import annotations

import re

from tune_gpu.common.errors import UserError

_LONGEST = 255
_NAME = re.compile(r"[A-Za-z0-9:_\\][A-Za-z0-9:_.\\-]*(@[A-Za-z0-9:_.\\-]+)?")
"""Without its ending; an instance of a template has its own name behind the `@`."""
_BREAK = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
"""Ends a line for systemd, YAML or Python, or is a control character; a tab is none of these."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_unit(key: str, unit: str, *, of_systemd: bool) -> None:
    """Raises UserError for what is no service's name.

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
    """Raises UserError for a value that would not stay on its line in a unit, an env file or a comment."""
    if _BREAK.search(value):
        raise UserError(f"{key}={value!r}: has a line break or a control character. Use a value of one line.")


def check_variable(key: str, name: str) -> None:
    """Raises UserError for what is no name of an environment variable."""
    if not _VARIABLE.fullmatch(name):
        raise UserError(f"{key}.{name!r}: not the name of a variable. Use letters, digits and _.")
