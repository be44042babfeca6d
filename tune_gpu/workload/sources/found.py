"""Find the source that a profile names."""

from __future__ import annotations

import json
from collections.abc import Callable

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.config.session_settings import DEMONSTRATION, SAMPLES, ProfileSettings
from tune_gpu.workload.sources.clips import ClipFolder
from tune_gpu.workload.sources.demonstration import Demonstration
from tune_gpu.workload.sources.files import path_of
from tune_gpu.workload.sources.lines import Place, text_of_file
from tune_gpu.workload.sources.openai_messages import OpenAIMessages
from tune_gpu.workload.sources.prompts import Prompts
from tune_gpu.workload.sources.sharegpt import ShareGpt
from tune_gpu.workload.sources.synthetic import SampleClips, SampleTexts
from tune_gpu.workload.sources.values import Source

_TEXTS: dict[str, Callable[[str, Place], Source]] = {"messages": OpenAIMessages, "sharegpt": ShareGpt, "prompts": Prompts}


def source_of(profile: ProfileSettings, workload: WorkloadSettings, key: str, language: str, *, spoken: bool) -> Source:
    """Return the source of a profile.

    Args:
        profile: its settings.
        workload: settings of clips.
        key: of the profile, with a dot at its end.
        language: Whisper's code of the language of clips.
        spoken: whether turns begin with speech.

    Raises:
        UserError: the source does not exist, cannot be read, or has texts where turns begin with speech.
    """
    place = Place(f"{key}source={profile.source}")
    if profile.source == SAMPLES:
        return SampleClips(workload.audio, language) if spoken else SampleTexts()
    if profile.source == DEMONSTRATION:
        return Demonstration(place, workload.audio, spoken)
    path = path_of(profile.source, f"{key}source")
    text = "" if path.is_dir() else text_of_file(path, place)
    format_ = profile.format or ("clips" if path.is_dir() else _format_of(text.lstrip()))
    if path.is_dir() != (format_ == "clips"):
        what = "a folder" if path.is_dir() else "a file"
        raise UserError(f"{key}format={format_}: {profile.source} is {what}. Remove the format, or set another source.")
    if format_ == "clips":
        return ClipFolder(path, place, workload.audio, language, spoken)
    if spoken:
        raise place.error("has texts, but a turn begins with speech", "Give a folder of clips, or leave speech to text out of workload.turn.")
    return _TEXTS[format_](text, place)


def _format_of(text: str) -> str:
    """Return the format of a file by its content."""
    if text.startswith("["):
        return "sharegpt"
    if not text.startswith("{"):
        return "prompts"
    try:
        first = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        first = {}
    return "sharegpt" if "conversations" in first else "prompts" if "prompt" in first else "messages"
