"""Estimate the memory of faster-whisper: weights by size and compute type, and the workspace of encoder and decoder.

Shapes are those of OpenAI's models. Per 30 s of audio the encoder makes 1500 frames. The decoder keeps their keys and values for every
layer (once per item of a batch), and its own for 448 tokens (once per beam). Check: faster-whisper's own table for large-v2, float16, beam
5 has 4525 MiB alone and 6090 MiB with a batch of 8 (this model: 4529, 6741), and 2926 MiB in int8 (this model: 3014).
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from tune_gpu.common.errors import UserError
from tune_gpu.config.rules import check
from tune_gpu.services.faster_whisper.settings import WhisperSettings
from tune_gpu.services.vllm.memory.arithmetic import MIB

FRAMES, TOKENS = 1500, 448
_ALLOCATOR = 1.35  # CTranslate2's caching allocator holds more than is in use at once
_PROCESS_BYTES = {"cuda": 450 * MIB, "cpu": 270 * MIB}  # CUDA context with cuBLAS; Python with CTranslate2 and the audio decoder


@dataclass(frozen=True)
class WhisperShape:
    """Shape of one size of Whisper."""

    params: float
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int


_SHAPES = {
    "tiny": WhisperShape(37.8e6, 384, 4, 4, 6), "base": WhisperShape(72.6e6, 512, 6, 6, 8), "small": WhisperShape(241.7e6, 768, 12, 12, 12),
    "medium": WhisperShape(763.9e6, 1024, 24, 24, 16), "large": WhisperShape(1543.5e6, 1280, 32, 32, 20),
    "turbo": WhisperShape(808.9e6, 1280, 32, 4, 20), "distil-large": WhisperShape(756.4e6, 1280, 32, 2, 20),
    "distil-medium": WhisperShape(394.4e6, 1024, 24, 2, 16), "distil-small": WhisperShape(166.1e6, 768, 12, 4, 12),
}
_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int16": 2.0, "int8": 1.0, "int8_float32": 1.0, "int8_float16": 1.0, "int8_bfloat16": 1.0}
"""Bytes of a value in each compute type of CTranslate2."""


def whisper_shape(model: str) -> WhisperShape | None:
    """Return the shape of a size, by a name such as `tiny.en` or `large-v3`, alone or inside a path or hub name, or None if it names no
    size."""
    name = model.lower()
    for size in ("turbo", *sorted(_SHAPES, key=len, reverse=True)):  # large-v3-turbo is a turbo
        if re.search(rf"(?:^|[^a-z]){re.escape(size)}(?:$|[^a-z])", name):
            return _SHAPES[size]
    return None


def whisper_mib(settings: WhisperSettings, device_kind: str, batch: int | None = None) -> tuple[float, float]:
    """Return the MiB in use while it transcribes, and their standard deviation.

    Args:
        settings: of the service.
        device_kind: `cuda` or `cpu`.
        batch: pieces of an utterance that are decoded together; None if unknown. It is at most `settings.batch_size`, and 1 for an
            utterance below 30 s. If unknown, two standard deviations span the range.

    Raises:
        UserError: a compute type that CTranslate2 does not have, a beam below 1, or a name that is not a size, a folder or a hub name.
    """
    if batch is None and settings.batch_size > 1:
        (one, sigma), (all_of, _) = (whisper_mib(settings, device_kind, pieces) for pieces in (1, settings.batch_size))
        return (one + all_of) / 2, math.hypot(sigma, (all_of - one) / 4)
    batch = batch or 1
    check(settings, "whisper.")
    kind = settings.compute_type
    if kind == "default":  # as in the files, 16 bits, or float32 where those are slow
        kind = "float16" if device_kind == "cuda" else "float32"
    elif kind == "auto":  # the fastest type of the device
        kind = "int8_float16" if device_kind == "cuda" else "int8_float32"
    shape = whisper_shape(settings.model)
    unknown = shape is None
    if unknown and "/" not in settings.model and not os.path.isdir(settings.model):
        raise UserError(f"whisper.model={settings.model}: no such size. Set one of {', '.join(_SHAPES)} (with .en or a version), a folder or a hub name.")
    shape = shape or _SHAPES["base"]
    weights = shape.params * _BYTES[kind] * (1.05 if kind.startswith("int8") else 1.0)  # scales, and layers that stay in 16 bits
    activations = 2.0 if device_kind == "cuda" and kind != "float32" else 4.0
    items = batch * max(1, settings.num_workers)
    crossed = items * 2 * shape.decoder_layers * FRAMES * shape.width * activations
    decoded = items * settings.beam_size * 2 * shape.decoder_layers * TOKENS * shape.width * activations
    encoded = items * FRAMES * (shape.heads * FRAMES + 10 * shape.width) * activations * 2
    if batch > 1:  # a batch is encoded once, not once per item at full width
        encoded /= batch
        decoded /= batch
    total = (_PROCESS_BYTES[device_kind] + weights + _ALLOCATOR * (crossed + decoded + encoded)) / MIB
    return total, total * (0.5 if unknown else 0.12)
