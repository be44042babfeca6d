"""The built-in requests, and the built-in clips where a turn begins with speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tune_gpu.config.schema import AudioSettings
from tune_gpu.workload.audio import load_utterances
from tune_gpu.workload.sample_texts import SAMPLES
from tune_gpu.workload.sources.values import Conversation, Exchange


@dataclass(frozen=True)
class SampleTexts:
    """Single requests of users."""

    synthetic = True

    def conversations(self) -> Sequence[Conversation]:
        """Return one conversation for each text."""
        return [Conversation(f"sample-{number}", (Exchange(text),)) for number, text in enumerate(SAMPLES, 1)]

    def notes(self) -> Sequence[str]:
        """Return nothing: all are used."""
        return ()


@dataclass(frozen=True)
class SampleClips:
    """Single utterances: the clips of `workload.audio`."""

    settings: AudioSettings
    language: str = "en"

    @property
    def synthetic(self) -> bool:
        """Return whether they are the built-in clips."""
        return self.settings.source == "samples"

    @cached_property
    def _read(self) -> Sequence[Conversation]:
        clips = load_utterances(self.settings, self.language)
        return [Conversation(clip.name, (Exchange(clip.reference, clip=clip),)) for clip in clips]

    def conversations(self) -> Sequence[Conversation]:
        """Return one conversation for each clip. Raise UserError if a clip cannot be read."""
        return self._read

    def notes(self) -> Sequence[str]:
        """Return nothing: all are used."""
        return ()
