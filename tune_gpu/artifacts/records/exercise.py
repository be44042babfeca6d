"""What a run's traffic did not exercise: a part of `summary.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tune_gpu.artifacts.records.base import OPTIONAL, Record
from tune_gpu.common.wording import listed


@dataclass(frozen=True, kw_only=True)
class UnexercisedRecord(Record):
    """Parameters that this traffic did not exercise, and why."""

    parameters: tuple[str, ...]
    why: str
    on: str = field(default="", metadata=OPTIONAL)
    """What they could not matter for, if they have other effects."""

    @property
    def text(self) -> str:
        """Return it as a line: `longest prompt with its answer 41 of 4,096 tokens: max_model_len could not matter here`."""
        names = listed(self.parameters)
        return f"{self.why}: {f'the effect of {names} on {self.on}' if self.on else names} could not matter here"


@dataclass(frozen=True, kw_only=True)
class ExerciseRecord(Record):
    """What the measurements of a run cannot say of its parameters."""

    unexercised: tuple[UnexercisedRecord, ...] = ()
    inside_noise: tuple[str, ...] = ()
    """Parameters that moved nothing beyond the noise: some configurations differ in one of them only, and none of these are shown to differ."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return each statement as a line."""
        texts = [found.text for found in self.unexercised]
        if self.inside_noise:
            which = "it" if len(self.inside_noise) == 1 else "one of them"
            texts.append(f"inside the noise: {listed(self.inside_noise)} (no two configurations that differ only in {which} are shown to differ in fitness)")
        return tuple(texts)
