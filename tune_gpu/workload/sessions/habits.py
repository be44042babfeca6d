"""How the callers of a measurement behave, whatever their plan says."""

from __future__ import annotations

from dataclasses import dataclass

from tune_gpu.config.schema import WorkloadSettings

_READ_WPM = 150.0
"""Words a minute of a caller whose words have no clip."""


@dataclass(frozen=True)
class Habits:
    """Settings of the traffic that the plan does not hold."""

    own_history: bool = False
    """The history holds what was heard and answered, rather than the plan's texts."""
    hears_transcript: bool = False
    """The LLM gets what was transcribed, rather than the reference."""
    listen_wpm: float = _READ_WPM
    """Words a minute at which a caller listens to an answer that is not synthesised; 0: does not listen."""
    endpoint_s: float = 0.0
    """Between the end of speech and the first request of a turn."""

    @classmethod
    def of(cls, workload: WorkloadSettings) -> Habits:
        """Return the habits of a traffic. What its settings leave open is that of a search: equal prompts for all candidates."""
        return cls(workload.history == "own", workload.llm_hears == "transcript", workload.listen_wpm, workload.turn_taking.endpoint_ms / 1e3)

    def reading_s(self, text: str) -> float:
        """Return how long a caller takes to hear a text that is not synthesised."""
        return 60.0 * len(text.split()) / self.listen_wpm if self.listen_wpm > 0 else 0.0


def speaking_s(text: str) -> float:
    """Return how long it takes to say a text of which there is no clip."""
    return 60.0 * len(text.split()) / _READ_WPM
