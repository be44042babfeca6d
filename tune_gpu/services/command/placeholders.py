"""Fill the placeholders of a command: `{port}`, `{host}`, `{settings.NAME}` and, in variables only, `{key}`. A literal brace is written twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from tune_gpu.config.rules import nearest

PORT, HOST, KEY, SETTING = "port", "host", "key", "settings."
ALLOWED = "{port}, {host} or {settings.NAME}"


def parts(text: str) -> list[tuple[str, str | None]]:
    """Return each piece of literal text with the name of the placeholder behind it, or with None at the end.

    Raises:
        ValueError: a single brace, a conversion (`{port!r}`) or a format (`{port:04}`).
    """
    found = []
    for literal, name, spec, conversion in Formatter().parse(text):
        if spec or conversion:
            raise ValueError("a conversion or a format")
        found.append((literal, name))
    return found


def names_in(text: str) -> set[str]:
    """Return the names of the placeholders in a text. Raise ValueError as `parts` does."""
    return {name for _, name in parts(text) if name is not None}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its placeholders filled. Raise KeyError for a name without a value."""
    return "".join(literal + ("" if name is None else values[name]) for literal, name in parts(text))


def word(value: Any) -> str | None:
    """Return a setting as it stands in an argument, or None for a value that is no text, number or switch."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return None if "\0" in value else value
    return str(value) if isinstance(value, (int, float)) else None


def problems(at: str, command: list[str], env: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the placeholders of a command, and with the settings that fill them.

    Args:
        at: prefix of the keys, `services.NAME.`.
        command: the arguments.
        env: the variables.
        settings: the values of `{settings.NAME}`.
    """
    texts = {f"{at}command[{number}]": text for number, text in enumerate(command)} | {f"{at}env.{name}": text for name, text in env.items()}
    used: set[str] = set()
    for key, text in texts.items():
        try:
            names = names_in(text)
        except ValueError:
            yield f"{key}={text}: its braces enclose no placeholder. Use {ALLOWED}; write {{{{ and }}}} for braces of the text itself."
            return
        used |= names
        for name in sorted(names):
            if problem := _unfilled(at, name, settings):
                yield f"{key}={text}: {problem}"
        if KEY in names and not key.startswith(f"{at}env."):
            yield f"{key}: every user of the machine can read {{key}} on a command line. Put {{key}} into a variable under {at}env."
    if PORT not in used:
        yield f"{at}command: it has no {{port}}, and neither has env, so the server cannot know its port. Put {{port}} where the port belongs."
    for name, value in settings.items():
        if f"{SETTING}{name}" not in used:
            yield f"{at}settings.{name}: changes nothing, because no {{{SETTING}{name}}} stands in command or env. Put it there, or remove the setting."
        if word(value) is None:
            shown = "null" if value is None else str(value)
            yield f"{at}settings.{name}={shown}: cannot fill a placeholder. Set a text, a number, true or false."


def _unfilled(at: str, name: str, settings: Mapping[str, Any]) -> str | None:
    """Return why nothing fills the placeholder of this name, or None."""
    if name in (PORT, HOST, KEY):
        return None
    if not name.startswith(SETTING):
        known = (PORT, HOST, KEY, *(f"{SETTING}{each}" for each in settings))
        return f"{{{name}}} is no placeholder{nearest(name, known)}. Use {ALLOWED}; write {{{{ and }}}} for braces of the text itself."
    wanted = name.removeprefix(SETTING)
    return None if wanted in settings else f"nothing fills {{{name}}}{nearest(wanted, map(str, settings))}. Add {at}settings.{wanted}, or correct the name."
