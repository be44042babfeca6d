"""The peak of an audio encoder of Whisper's kind in vLLM's profiling run: as many of the longest recordings as a batch holds.

Facts from vLLM's models: `qwen2_audio.py` and `qwen2_5_omni_thinker.py` profile 30 s, which a pooling layer makes 750 tokens of;
`voxtral.py` profiles a recording as long as the context, of four frames a token, in pieces of 30 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tune_gpu.services.vllm.memory.arithmetic import Number, maximum, minimum
from tune_gpu.services.vllm.memory.vision_encoder import MOST_ITEMS

_FRAMES = {"qwen2_audio": (1500, 2), "qwen2_5_omni": (1500, 2), "voxtral": (0, 4)}
"""By the beginning of the type: frames (of 20 ms) of the longest recording, 0 for the whole context, and frames of a token."""
_MEL_BINS = 128


@dataclass(frozen=True)
class AudioEncoder:
    """Shapes of an encoder."""

    hidden: int
    intermediate: int
    frames: int
    """Frames of the longest recording; 0 if the context limits it."""
    frames_of_a_token: int
    bins: int = _MEL_BINS
    doubt: ClassVar[float] = 0.4
    """Standard deviation of the peak, as a share of it. It was compared with no logged start."""

    @classmethod
    def of(cls, audio: Mapping[str, Any] | None, outer: Mapping[str, Any]) -> AudioEncoder | None:
        """Read the shapes from an `audio_config`, or return None where the longest recording is not known."""
        kind = str(outer.get("model_type", ""))
        longest = next((frames for start, frames in _FRAMES.items() if kind.startswith(start)), None)
        hidden, inner = (_size(audio, *names) for names in (("d_model", "hidden_size"), ("encoder_ffn_dim", "intermediate_size")))
        if longest is None or not hidden or not inner:
            return None
        return cls(hidden, inner, *longest, _size(audio, "num_mel_bins") or _MEL_BINS)

    def item_tokens(self, context: Number, limits: Mapping[str, int]) -> Number:
        """Return the tokens of the longest recording; 0 if no prompt may have one."""
        tokens = self.frames // self.frames_of_a_token if self.frames else context
        return tokens * (limits.get("audio", MOST_ITEMS) > 0)

    def peak(self, batch_tokens: Number, context: Number, width: int, limits: Mapping[str, int], _hidden: int) -> Number:
        """Return the bytes of the encoder's widest moment over all recordings of a batch.

        It is the feed-forward layer, whose two products (before and after its function) exist beside the input and its norm, or the
        queries, keys, values and outputs; and the spectrum, which has two columns a frame.
        """
        of_a_frame = max(2 * self.hidden + 2 * self.intermediate, 9 * self.hidden) + self.hidden + 2 * self.bins
        return self._tokens(batch_tokens, context, limits) * self.frames_of_a_token * float(of_a_frame) * width

    def output(self, batch_tokens: Number, context: Number, width: int, limits: Mapping[str, int], hidden: int) -> Number:
        """Return the bytes of the encoder's output for a language model of this hidden size."""
        return self._tokens(batch_tokens, context, limits) * float(hidden) * width

    def _tokens(self, batch_tokens: Number, context: Number, limits: Mapping[str, int]) -> Number:
        of_an_item = self.item_tokens(context, limits)
        items = maximum(batch_tokens // maximum(of_an_item, 1), 1)
        return of_an_item * minimum(items, limits.get("audio", MOST_ITEMS))


def _size(part: Mapping[str, Any] | None, *names: str) -> int:
    for name in names:
        value = (part or {}).get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6:
            return value
    return 0
