"""`traffic` is another spelling of the section `workload`: in a space, in its overlays and on the command line.

The program knows the section by its old name. `Spelling` turns a message about it into the spelling that the user typed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_gpu.common.errors import UserError

_SPELLING, _SECTION = "traffic", "workload"
_OVERRIDE = re.compile(rf"(?P<remove>~?){_SPELLING}(?=[.\[=]|$)")
_NAMED = re.compile(rf"(?<![\w/-]){_SECTION}(?!\.ya?ml\b)(?P<key>(?:\.\w+)+|(?=[:=]))")
"""The section or a key of it in a message, but not a file of that name."""


@dataclass(frozen=True)
class Spelling:
    """How the user spells the section, so that a message names the key as typed."""

    section: str = _SECTION
    """Where a key is not typed on the command line."""
    typed: Mapping[str, str] = field(default_factory=dict)
    """Key below the section -> the spelling that the command line has for it."""

    @classmethod
    def of(cls, content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Spelling:
        """Return the spelling of a space as written, and of the overrides. A space that has neither is spelled like its services: `traffic` if
        they have kinds."""
        typed = {}
        for override in overrides:
            key = _key(_renamed_override(override))
            if key.partition(".")[0] == _SECTION:
                typed[key.removeprefix(_SECTION)] = _SPELLING if _OVERRIDE.match(override) else _SECTION
        layers = [content, *(overlay for overlay in _overlays(content).values() if isinstance(overlay, dict))]
        written = [spelling for spelling in (_SPELLING, _SECTION) if any(spelling in layer for layer in layers)]
        services = content.get("services")
        named = isinstance(services, dict) and any(isinstance(settings, dict) and "kind" in settings for settings in services.values())
        return cls([*written, *typed.values(), _SPELLING if named else _SECTION][0], typed)

    def text(self, message: str) -> str:
        """Return the message with the user's spelling of the section."""
        return _NAMED.sub(lambda found: self._of(found["key"]) + found["key"], message)

    def _of(self, key: str) -> str:
        while key and key not in self.typed:
            key = key.rpartition(".")[0]
        return self.typed.get(key, self.section)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the errors of a block with the user's spelling."""
        try:
            yield
        except UserError as error:
            error.args = (self.text(str(error)),)
            raise


def section_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space with the section under its one name, also in the overlays of devices. Raise UserError if both spellings stand together."""
    found = _renamed(content, "")
    if overlays := _overlays(found):
        found["devices"] = {kind: _renamed(overlay, f"devices.{kind}.") if isinstance(overlay, dict) else overlay for kind, overlay in overlays.items()}
    return found


def _overlays(content: Mapping[str, Any]) -> Mapping[str, Any]:
    overlays = content.get("devices")
    return overlays if isinstance(overlays, dict) else {}


def _renamed(layer: Mapping[str, Any], at: str) -> dict[str, Any]:
    if _SPELLING in layer and _SECTION in layer:
        raise UserError(f"{at}{_SPELLING}: another spelling of {at}{_SECTION}, which is given as well. Keep one of them.")
    return {_SECTION if key == _SPELLING else key: value for key, value in layer.items()}


def overrides_of(overrides: Sequence[str]) -> list[str]:
    """Return overrides with the section under its one name. Raise UserError if both spellings set the same key."""
    found = [_renamed_override(override) for override in overrides]
    usual = {_key(override) for override in overrides}
    for given, used in zip(overrides, found, strict=True):
        if given != used and _key(used) in usual:
            raise UserError(f"{given}: {_key(used)} is another spelling of the same key, and is given as well. Keep one of them.")
    return found


def _renamed_override(override: str) -> str:
    return _OVERRIDE.sub(rf"\g<remove>{_SECTION}", override, count=1)


def _key(override: str) -> str:
    return override.removeprefix("~").partition("=")[0]
