"""Check the form fields of OpenAI's transcription and translation API. Nothing that a client sends is ignored."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

ALIASES = ("whisper", "whisper-1")
"""Names that clients know beside the one that is served: a service has one model."""
_GRANULARITIES = ("segment", "word")
_GRANULARITY_FIELD = "timestamp_granularities"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class AnswerFormat(StrEnum):
    """The values of `response_format`."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"

    @property
    def timed(self) -> bool:
        """Return whether the answer has the time of each segment."""
        return self in (AnswerFormat.SRT, AnswerFormat.VERBOSE_JSON, AnswerFormat.VTT)


class Task(StrEnum):
    """What Whisper does with speech."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


_FIELDS = {
    Task.TRANSCRIBE: ("file", "model", "language", "prompt", "response_format", "temperature", _GRANULARITY_FIELD, "stream"),
    Task.TRANSLATE: ("file", "model", "language", "prompt", "response_format", "temperature"),
}


class Refused(ValueError):
    """A request that is not answered.

    Args:
        message: what is wrong, and what to do.
        param: the form field.
        status: of HTTP.
    """

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class Asked:
    """A checked request."""

    task: Task
    language: str | None
    """Whisper's code of what is spoken; null: to be detected."""
    prompt: str | None
    """Text that comes before the speech; Whisper reads its last 223 tokens."""
    format: AnswerFormat
    temperature: float
    """0: greedy, and hotter only where the result is implausible."""
    words: bool
    """Whether each word has its time."""
    segments: bool
    """Whether `verbose_json` has the segments."""
    stream: bool


def read_form(
    task: Task, fields: Mapping[str, Sequence[object]], *, names: Collection[str], languages: Collection[str], default_language: str
) -> Asked:
    """Check the fields of a form.

    Args:
        task: the one that the address names.
        fields: field -> all its values, `file` among them.
        names: of the model.
        languages: the codes that the model takes.
        default_language: the service's own, for a transcription that names none.

    Raises:
        Refused: a field that is unknown, given twice, or has a value that the model or this service does not take.
    """
    given = {name.removesuffix("[]"): list(values) for name, values in fields.items()}
    _check_names(task, given)
    if (model := _text(given, "model")) is not None and model not in (*names, *ALIASES):
        raise Refused(f"model={model}: it is not served. Served is {', '.join(names)}.", "model", 404)
    answer = _answer_format(given)
    granularities = _granularities(given, answer)
    return Asked(
        task,
        _language(given, task, languages, default_language),
        _text(given, "prompt"),
        answer,
        _temperature(given),
        words="word" in granularities,
        segments="segment" in granularities,
        stream=_stream(given, answer),
    )


def _check_names(task: Task, given: Mapping[str, Sequence[object]]) -> None:
    for name, values in given.items():
        if name not in _FIELDS[task]:
            near = difflib.get_close_matches(name, _FIELDS[task], n=1)
            raise Refused(f"{name}: not supported.{f' Did you mean {near[0]}?' if near else ''} Supported are {', '.join(_FIELDS[task])}.", name)
        if len(values) > 1 and name != _GRANULARITY_FIELD:
            raise Refused(f"{name}: it is given {len(values)} times. Give it once.", name)


def _text(given: Mapping[str, Sequence[object]], name: str) -> str | None:
    """Return the value of a field; None if it is absent or empty."""
    value = (given.get(name) or [""])[0]
    if not isinstance(value, str):
        raise Refused(f"{name}: it is a file. Send text.", name)
    return value or None


def _answer_format(given: Mapping[str, Sequence[object]]) -> AnswerFormat:
    value = _text(given, "response_format") or AnswerFormat.JSON
    if value not in list(AnswerFormat):
        raise Refused(f"response_format={value}: not supported. Supported are {', '.join(AnswerFormat)}.", "response_format")
    return AnswerFormat(value)


def _language(given: Mapping[str, Sequence[object]], task: Task, languages: Collection[str], default: str) -> str | None:
    language = _text(given, "language")
    if task is Task.TRANSLATE and len(languages) == 1:
        raise Refused("the model knows English only, so it cannot translate. Serve a model whose name does not end in .en.", "model")
    if language is None:
        return default if task is Task.TRANSCRIBE else None
    if language not in languages:
        raise Refused(f"language={language}: unknown to the model. Send one of {', '.join(languages)}.", "language")
    return language


def _temperature(given: Mapping[str, Sequence[object]]) -> float:
    text = _text(given, "temperature") or "0"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise Refused(f"temperature={text}: out of range. Send a number from 0 to 1.", "temperature")
    return value


def _granularities(given: Mapping[str, Sequence[object]], answer: AnswerFormat) -> list[object]:
    values = given.get(_GRANULARITY_FIELD, [])
    if values and answer is not AnswerFormat.VERBOSE_JSON:
        raise Refused(f"{_GRANULARITY_FIELD}: only response_format=verbose_json has them. Ask for that.", _GRANULARITY_FIELD)
    for value in values:
        if value not in _GRANULARITIES:
            raise Refused(f"{_GRANULARITY_FIELD}={value}: not supported. Supported are {', '.join(_GRANULARITIES)}.", _GRANULARITY_FIELD)
    return list(values) or ["segment"]


def _stream(given: Mapping[str, Sequence[object]], answer: AnswerFormat) -> bool:
    text = (_text(given, "stream") or "false").lower()
    if text not in _BOOLEANS:
        raise Refused(f"stream={text}: not allowed. Send true or false.", "stream")
    if _BOOLEANS[text] and answer is not AnswerFormat.JSON:
        raise Refused(f"stream=true: response_format={answer} is not streamed. Use json.", "stream")
    return _BOOLEANS[text]
