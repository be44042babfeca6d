"""Two voices from one: that of the package hibari-tts (Apache-2.0), and the same spoken lower.

The lower one is synthesised faster and played slower, so that its pitch and its resonances lie about a minor third below at the same tempo. A recogniser
hears another speaker, but both share one way of speaking: clean, and without the hesitations of people.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tune_gpu.services.decoding import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Voice:
    """One of the voices."""

    name: str
    speed: float
    """At which it is synthesised."""
    up: int
    down: int
    """The factor from the synthesiser's rate to that of clips, which also undoes the speed."""


VOICES = (Voice("heart", 1.0, 2, 3), Voice("heart-lower", 7 / 6, 7, 9))
"""From 24 kHz to 16 kHz: 2/3; at 7/6 of the speed and played at 6/7 of the rate: 7/9."""


class Synthesiser:
    """Hibari, loaded at the first use."""

    @cached_property
    def _hibari(self) -> Any:
        from hibari import Hibari

        found = Hibari()
        if found.sample_rate * VOICES[0].up != SAMPLE_RATE_HZ * VOICES[0].down:
            raise ValueError(f"hibari-tts speaks at {found.sample_rate} Hz, not at 24000 Hz")
        return found

    @cached_property
    def dictionary(self) -> Collection[str]:
        """Return the words that it knows, in lower case."""
        import gzip
        import importlib.resources
        import json

        with (importlib.resources.files("hibari") / "assets" / "lexicon_us_gold.json.gz").open("rb") as packed:
            return frozenset(word.lower() for word in json.loads(gzip.decompress(packed.read())))

    def speak(self, text: str, voice: Voice) -> np.ndarray:
        """Return the text as speech: float32 samples, mono, 16 kHz, the same for the same text."""
        from scipy.signal import resample_poly

        spoken = self._hibari(text, voice.speed, seed=0)
        return np.clip(resample_poly(spoken, voice.up, voice.down), -1.0, 1.0).astype(np.float32)
