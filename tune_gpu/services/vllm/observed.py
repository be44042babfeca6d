"""What a running vLLM reports of its settings: its command line, its start log, `/metrics` and `/v1/models`.

Each function parses the text of one source, and leaves out what it cannot parse.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tune_gpu.services.command_lines import SOURCE, flags_in
from tune_gpu.services.exposition import samples
from tune_gpu.services.observation import UNREAD, Asked, Choice, Observed, Reading, Rewritten, Setting, answered, parsed, tried
from tune_gpu.services.vllm.numbers import read_count
from tune_gpu.services.vllm.options import Kind, Spelling, options, own_options, read_name

DEFAULTS = Path(__file__).with_name("serve_defaults.json")
_LINE = re.compile(r"non-default args: (\{.*)")
_OPEN, _CLOSE = "([{<", ")]}>"
_MEMBER = re.compile(r"<\w+\.(\w+): ([^<>]*)>")
_LONGEST_LINE = 2**17
"""Longest line that is parsed, in characters. All of vLLM's options together take a tenth of it. Nested structures are parsed again at each
level, which takes quadratic time."""
_MASKED = "***"
"""Text that vLLM logs instead of a secret."""
_FIRM = ("enable-prefix-caching", "gpu-memory-utilization", "kv-cache-dtype", "kv-cache-memory-bytes", "num-gpu-blocks-override", "prefix-caching-hash-algo")
"""Options whose value in `vllm:cache_config_info` no backend replaces."""
_LABELS = {"cache-dtype": "kv-cache-dtype"}
"""Labels of `vllm:cache_config_info` with another name than the option's."""


def observed(config: Mapping[str, Any], service: Asked) -> Observed:
    """Return the settings of a deployed configuration, and what the running engine reports."""
    settings = settings_in(config)
    version = tried(lambda: str(json.loads(service.page("/version"))["version"]))
    readings = answered(
        lambda: None if service.argv is None else command_line(service.argv),
        lambda: start_log(service.log(), version),
        lambda: cache_config(service.page("/metrics"), settings),
        lambda: served_model(service.page("/v1/models"), settings),
    )
    return Observed(settings, readings)


def other_model(config: Mapping[str, Any], page: Callable[[str], str]) -> str | None:
    """Return which models are served in place of the deployed one, or None if it is among them."""
    wanted, served = config["served-model-name"], [str(model["id"]) for model in json.loads(page("/v1/models"))["data"]]
    return None if wanted in served else f"serves {', '.join(served)}, not {wanted}"


def settings_in(content: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of a file for `vllm serve --config`."""
    found = []
    for name, value in content.items():
        spelling = read_name(name)
        measured = (not value if spelling.off else value) if isinstance(value, bool) else parsed(value)
        if spelling.path and isinstance(value, str):  # below a dot every value is JSON
            measured = json.loads(value)
        if spelling.option == "max-model-len" and str(value) == "-1":
            measured = "auto"
        if spelling.adds or (value is True and spelling.known and spelling.known.kind is Kind.OPTIONAL):
            measured = UNREAD  # vLLM rewrites it
        found += _leaves(spelling.option, spelling.path, measured)
    return found


def _leaves(option: str, path: tuple[str, ...], value: Any) -> list[Setting]:
    """Return the entries of a structure one by one, because a source may report only some."""
    if isinstance(value, dict) and value:
        return [leaf for key, below in value.items() for leaf in _leaves(option, (*path, str(key)), below)]
    return [Setting(option, path, value, read_count)]


@cache
def _known_defaults() -> tuple[str, Mapping[str, Any]]:
    """Return the version of vLLM whose defaults are known, and those defaults."""
    content = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    return str(content["vllm"]), content["defaults"]


def start_log(text: str, version: str | None) -> Reading | None:
    """Return the arguments in the last line of non-default arguments that vLLM printed, or None if there is no such line of plausible
    length.

    Args:
        text: the log.
        version: the version of the running vLLM. An option that is missing from the line has its default, which is known for one version
            only.
    """
    lines = _LINE.findall(text)
    if not lines or len(lines[-1]) > _LONGEST_LINE:
        return None
    entries, whole = _entries(lines[-1])
    values = {name.replace("_", "-"): value for name, value in entries.items()}
    known, defaults = _known_defaults()
    is_known = whole and version is not None and version.partition("+")[0] == known.partition("+")[0]
    return Reading("start log", values, defaults if is_known else None, own_options() & values.keys())


def _entries(text: str) -> tuple[dict[str, Any], bool]:
    """Return the entries of a dictionary in Python's syntax, and whether it was complete. A value that is not a literal is UNREAD."""
    parts, whole = _split(text)
    split = (part.partition(": ") for part in parts)
    found = {str(_value(key)): _value(value) for key, colon, value in split if colon}
    return {name: UNREAD if value == _MASKED else value for name, value in found.items()}, whole


def _split(text: str) -> tuple[list[str], bool]:
    """Split at the commas between the entries, in one pass. Python's parser cannot do that, because not all values are literals."""
    parts: list[str] = []
    depth, start, quote, position = 0, 1, "", 0
    while position < len(text):
        char = text[position]
        if quote:
            position += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
            if depth == 0:
                return [*parts, text[start:position].strip()], True
        elif char == "," and depth == 1:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    return parts, False


def _value(text: str) -> Any:
    """Return the value of one entry. vLLM has rewritten a structure that contains anything but literals."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        pass
    if member := _MEMBER.fullmatch(text):
        return Choice(member[1], _value(member[2]))
    return Rewritten(_entries(text)[0]) if text.startswith("{") else UNREAD


def command_line(argv: Sequence[str]) -> Reading:
    """Return the flags of a process. They override those in its file."""
    values: dict[str, Any] = {}
    for spelling, given in _flags(argv):
        kind = spelling.known.kind if spelling.known else None
        value: Any = given[0] if len(given) == 1 else given
        if not given or kind in (Kind.SWITCH, Kind.ON):
            value = UNREAD if kind is Kind.OPTIONAL else not spelling.off
        _put(values, (spelling.option, *spelling.path), parsed(value))
    return Reading(SOURCE, values)


def _flags(argv: Sequence[str]) -> Iterator[tuple[Spelling, list[str]]]:
    """Yield each flag that vLLM knows, or that has the form of a long one, with its words."""
    for flag, given in flags_in(argv):
        if flag.startswith("--"):
            yield read_name(flag.lstrip("-")), given
        elif long := _long_of(flag):
            yield read_name(long), given


def _long_of(short: str) -> str | None:
    return next((option.name for option in options().values() if short in option.also), None)


def _put(values: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    """Store the value under its keys below an option."""
    if len(keys) > 1 and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    for key in keys[:-1]:
        below = values.setdefault(key, Rewritten())
        if not isinstance(below, dict):
            return
        values = below
    values[keys[-1]] = value


def cache_config(metrics: str, settings: Sequence[Setting]) -> Reading:
    """Return the labels of `vllm:cache_config_info`, without values that the engine may have chosen regardless of a setting."""
    labels = next((labels for labels, _ in samples(metrics, "vllm:cache_config_info")), {})
    names = {label.replace("_", "-"): value for label, value in labels.items()}
    values: dict[str, Any] = {_LABELS.get(name, name): None if value == "None" else value for name, value in names.items()}
    for setting in settings:
        value = values.get(setting.option, UNREAD)
        if value is not UNREAD and not setting.is_same(value) and _engine_may_choose(setting, str(value)):
            del values[setting.option]
    return Reading("/metrics", values)


def _engine_may_choose(setting: Setting, value: str) -> bool:
    """Return whether a backend may change the setting (block size, data type or prefix caching), as it also did during the measurement."""
    return (
        setting.value == "auto"
        or setting.option not in _FIRM
        or (setting.option == "kv-cache-dtype" and value.startswith(f"{setting.value}_"))
        or (setting.option == "enable-prefix-caching" and value in ("False", "None"))
    )


def served_model(body: str, settings: Sequence[Setting]) -> Reading:
    """Return the settings that `/v1/models` reports of the served model."""
    measured = {setting.option: setting.value for setting in settings}
    for model in json.loads(body)["data"]:
        if model["id"] == measured.get("served-model-name"):
            reported = {"max-model-len": model.get("max_model_len"), "model": model.get("root")}
            return Reading("/v1/models", {name: value for name, value in reported.items() if value is not None and measured.get(name) != "auto"})
    return Reading("/v1/models", {})
