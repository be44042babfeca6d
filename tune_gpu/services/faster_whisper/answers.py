"""A transcript in the formats of OpenAI's API."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_gpu.config.languages import LANGUAGES
from tune_gpu.services.faster_whisper.asked import AnswerFormat, Asked, Task

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment

_SEGMENT_FIELDS = ("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")


@dataclass(frozen=True)
class Transcript:
    """What Whisper made of some speech.

    Args:
        segments: in the order of their times.
        language: Whisper's code of what was spoken, given or detected.
        duration_s: of the speech.
        compute_s: of the model's work.
    """

    segments: Sequence[Segment]
    language: str
    duration_s: float
    compute_s: float

    @property
    def text(self) -> str:
        """Return the whole text."""
        return " ".join(segment.text.strip() for segment in self.segments)


def plain(transcript: Transcript, answer: AnswerFormat) -> str:
    """Return the body of an answer that is text: `text`, `srt` or `vtt`."""
    if answer is AnswerFormat.TEXT:
        return transcript.text + "\n"
    if answer is AnswerFormat.SRT:
        cues = (f"{number}\n{times}\n{text}\n\n" for number, (times, text) in enumerate(_cues(transcript, ","), 1))
        return "".join(cues)
    return "WEBVTT\n\n" + "".join(f"{times}\n{html.escape(text, quote=False)}\n\n" for times, text in _cues(transcript, "."))


def as_json(transcript: Transcript, asked: Asked) -> dict[str, Any]:
    """Return the body of an answer that is JSON: `json`, with the duration and the computing time in seconds, or `verbose_json`."""
    answer: dict[str, Any] = {"text": transcript.text, "usage": usage(transcript.duration_s)}
    if asked.format is not AnswerFormat.VERBOSE_JSON:
        return answer | {"duration_s": transcript.duration_s, "compute_s": transcript.compute_s}
    language = "en" if asked.task is Task.TRANSLATE else transcript.language
    answer |= {"task": str(asked.task), "language": LANGUAGES.get(language, language).lower(), "duration": transcript.duration_s}
    if asked.segments:
        answer["segments"] = [{name: getattr(segment, name) for name in _SEGMENT_FIELDS} for segment in transcript.segments]
    if asked.words:
        words = [word for segment in transcript.segments for word in segment.words or []]
        answer["words"] = [{"word": word.word.strip(), "start": word.start, "end": word.end} for word in words]
    return answer


def usage(duration_s: float) -> dict[str, Any]:
    """Return what OpenAI's API says of the cost: whole seconds of speech."""
    return {"type": "duration", "seconds": math.ceil(duration_s)}


def _cues(transcript: Transcript, point: str) -> Iterator[tuple[str, str]]:
    """Yield the times and the text of each segment that has any; a blank line would end a cue."""
    for segment in transcript.segments:
        if text := " ".join(segment.text.split()):
            yield f"{_clock(segment.start, point)} --> {_clock(segment.end, point)}", text


def _clock(seconds: float, point: str) -> str:
    """Return a time as `HH:MM:SS.mmm`, with the format's decimal point."""
    whole, ms = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms:03}"
