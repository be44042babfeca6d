"""What a running Whisper reports of its settings: its command line, and `/health` of our server. Other servers report none there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tune_gpu.services.command_lines import plain_flags
from tune_gpu.services.observation import Asked, Observed, Reading, answered, plain_settings


def observed(config: Mapping[str, Any], service: Asked) -> Observed:
    """Return the settings of a deployed configuration, and what the running server reports."""
    readings = answered(
        lambda: None if service.argv is None else plain_flags(service.argv),
        lambda: description(service.page("/health")),
    )
    return Observed(plain_settings(config), readings)


def other_device(device: str, page: Callable[[str], str]) -> str | None:
    """Return on which device the server runs in place of this one, or None. A server that does not report its device is accepted."""
    runs_on = json.loads(page("/health")).get("device")
    return None if runs_on in (None, device) else f"runs on {runs_on}, not on {device}"


def description(body: str) -> Reading:
    """Return the settings in the body of `/health`."""
    content = json.loads(body)
    settings = content.get("settings")
    values = dict(settings) if isinstance(settings, dict) else {}
    values |= {name: content[name] for name in ("name", "device") if name in content}
    return Reading("/health", {name.replace("_", "-"): value for name, value in values.items()})
