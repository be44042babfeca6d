"""What turns and background requests carry: clips and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tune_gpu.config.schema import WorkloadSettings
from tune_gpu.workload.audio import Utterance, load_utterances
from tune_gpu.workload.clients.call import Content
from tune_gpu.workload.stages import Medium, Stage
from tune_gpu.workload.texts import Text, load_texts


class Item(Protocol):
    """The input of a turn."""

    @property
    def name(self) -> str:
        """Return what it is called in the artifacts."""

    @property
    def reference(self) -> str:
        """Return what it says."""

    @property
    def language(self) -> str:
        """Return the language of the reference."""

    @property
    def length(self) -> float:
        """Return a measure of its length, to compare it with inputs of its kind."""

    def content(self, medium: Medium) -> Content:
        """Return it as a service takes it. Raise ValueError if it does not exist in this medium."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of an evaluation, in a fixed order."""

    clips: Sequence[Utterance] = ()
    texts: Sequence[Text] = ()

    @property
    def digest(self) -> str:
        """Return a hash of the clips and texts, 64 hexadecimal digits."""
        found = hashlib.sha256()
        items: list[Item] = [*self.clips, *self.texts]
        for item in items:
            found.update(repr((item.name, item.reference, item.language)).encode())
        for clip in self.clips:
            found.update(clip.samples.tobytes())
        return found.hexdigest()

    def of(self, turn: Sequence[Stage], stage: Stage) -> Sequence[Item]:
        """Return the inputs of turns that begin at a stage.

        A stage that takes text and stands behind one that takes clips gets what is said in the clips.

        Args:
            turn: the stages of a whole turn.
            stage: the first of a turn, or one that is driven alone.
        """
        if Medium.AUDIO in (stage.takes, turn[0].takes):
            return self.clips
        return self.texts

    def beside(self, stage: Stage) -> Sequence[Item]:
        """Return the inputs of a service's background requests."""
        if stage.takes is Medium.AUDIO:
            return self.clips
        return self.texts


def load_inputs(workload: WorkloadSettings, stages: Sequence[Stage], language: str = "en") -> Inputs:
    """Return the clips, if a stage takes audio, and the texts.

    Args:
        workload: the sources.
        stages: all that get requests: those of turns, and those of background requests.
        language: Whisper's code of the language of the clips.

    Raises:
        UserError: a source cannot be read.
    """
    clips = load_utterances(workload.audio, language) if any(stage.takes is Medium.AUDIO for stage in stages) else []
    return Inputs(clips, load_texts(workload.texts))
