"""`traffic` is another spelling of the section `workload`: in a space, in its overlays and on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.common.errors import UserError

_SPELLING, _SECTION = "traffic", "workload"
_OVERRIDE = re.compile(rf"(?P<remove>~?){_SPELLING}(?=[.\[=]|$)")


def section_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space with the section under its one name, also in the overlays of devices. Raise UserError if both spellings stand together."""
    found = _renamed(content, "")
    overlays = found.get("devices")
    if isinstance(overlays, dict):
        found["devices"] = {kind: _renamed(overlay, f"devices.{kind}.") if isinstance(overlay, dict) else overlay for kind, overlay in overlays.items()}
    return found


def _renamed(layer: Mapping[str, Any], at: str) -> dict[str, Any]:
    if _SPELLING in layer and _SECTION in layer:
        raise UserError(f"{at}{_SPELLING}: another spelling of {at}{_SECTION}, which is given as well. Keep one of them.")
    return {_SECTION if key == _SPELLING else key: value for key, value in layer.items()}


def overrides_of(overrides: Sequence[str]) -> list[str]:
    """Return overrides with the section under its one name. Raise UserError if both spellings set the same key."""
    found = [_OVERRIDE.sub(rf"\g<remove>{_SECTION}", override, count=1) if _OVERRIDE.match(override) else override for override in overrides]
    usual = {_key(override) for override in overrides}
    for given, used in zip(overrides, found, strict=True):
        if given != used and _key(used) in usual:
            raise UserError(f"{given}: {_key(used)} is another spelling of the same key, and is given as well. Keep one of them.")
    return found


def _key(override: str) -> str:
    return override.removeprefix("~").partition("=")[0]
