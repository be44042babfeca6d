"""The demonstration's conversations: what people typed to one another, spoken by synthesised voices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tune_gpu.config.schema import AudioSettings
from tune_gpu.workload.demonstration.speech import CONVERSATIONS, demonstration_folder
from tune_gpu.workload.sources.clips import ClipFolder
from tune_gpu.workload.sources.lines import Place
from tune_gpu.workload.sources.values import Conversation


@dataclass(frozen=True)
class Demonstration:
    """Conversations of some turns, with their answers, and with clips where turns begin with speech."""

    place: Place
    settings: AudioSettings
    spoken: bool = True
    synthetic = True

    def conversations(self) -> Sequence[Conversation]:
        """Return them in a fixed order. They are made at the first use. Raise UserError if a package is missing, or the cache cannot be written."""
        folder = demonstration_folder()
        lines = [json.loads(line) for line in (folder / CONVERSATIONS).read_text(encoding="utf-8").splitlines()]
        answers = {line["id"]: [message["content"] for message in line["messages"] if message["role"] == "assistant"] for line in lines}
        spoken = {one.name: one for one in ClipFolder(folder, self.place, self.settings, "en", self.spoken).conversations() if one.name in answers}
        return [
            replace(one, exchanges=tuple(replace(exchange, answer=answer) for exchange, answer in zip(one.exchanges, answers[name], strict=True)))
            for name, one in spoken.items()
        ]

    def notes(self) -> Sequence[str]:
        """Return that the speech is synthetic."""
        return ["synthesised speech, which is easier to recognise than that of people"] if self.spoken else ()
