"""How long a stream of audio is: read from the header of a WAV file that may still grow, or from the content type of raw PCM."""

from __future__ import annotations

import io
import struct
import wave
from dataclasses import dataclass
from email.message import Message

_MAX_HEADER_BYTES = 2**16
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MAX_RATE_HZ, _MAX_CHANNELS = 384_000, 8
_PCM_RATE_HZ = 24_000
"""Of OpenAI's `pcm`: 16 bits, mono."""
_PCM_TYPES = ("audio/pcm", "audio/l16", "audio/x-pcm", "audio/raw")


@dataclass(frozen=True)
class Form:
    """How audio lies in a stream of bytes."""

    start: int
    """Bytes before the audio."""
    rate_hz: int
    channels: int
    sample_bytes: int
    size: int = 0
    """Bytes of audio as the header declares them. A stream declares 0 or more than it has, because it does not know."""

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of one moment of all channels."""
        return self.channels * self.sample_bytes

    def n_bytes(self, received: int) -> int:
        """Return the bytes of audio among so many bytes received. Further blocks may follow the audio of a file."""
        there = max(0, received - self.start)
        return self.size if 0 < self.size <= there else there

    def seconds(self, n_bytes: int) -> float:
        """Return how long so much audio is."""
        return n_bytes // self.frame_bytes / self.rate_hz


def read_form(content: bytes | bytearray) -> Form | None:
    """Return the form that the header of a WAV file declares, or None until the header is complete. Raise ValueError if it is malformed."""
    if len(content) < 12:
        return None
    if content[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    found: tuple[int, int, int] | None = None
    at = 12
    while at + 8 <= len(content):
        if at > _MAX_HEADER_BYTES:
            raise ValueError("no audio behind the header")
        block, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if block == b"data":
            if found is None:
                raise ValueError("audio without its form")
            return Form(at + 8, *found, size)
        if block == b"fmt ":
            if size < 16:
                raise ValueError("a form that is too short")
            if at + 24 > len(content):
                return None
            found = _form(content[at + 8 : at + 24])
        at += 8 + size + size % 2
    return None


def _form(block: bytes | bytearray) -> tuple[int, int, int]:
    """Return rate, channels and bytes of a sample. Raise ValueError if they make no sense."""
    kind, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", block)
    if kind not in (_PCM, _FLOAT, _EXTENSIBLE) or bits % 8:
        raise ValueError("neither PCM nor floating point")
    return _checked(rate_hz, channels, bits // 8)


def form_of_pcm(content_type: str) -> Form:
    """Return the form of raw PCM, 16 bits. Raise ValueError for any other type of content.

    Args:
        content_type: the header, for example `audio/L16; rate=16000; channels=1`.
    """
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() not in _PCM_TYPES:
        raise ValueError("neither WAV nor PCM")
    rate_hz, channels = (int(str(message.get_param(name, default))) for name, default in (("rate", str(_PCM_RATE_HZ)), ("channels", "1")))
    return Form(0, *_checked(rate_hz, channels, 2))


def _checked(rate_hz: int, channels: int, sample_bytes: int) -> tuple[int, int, int]:
    if not (0 < rate_hz <= _MAX_RATE_HZ and 0 < channels <= _MAX_CHANNELS and 0 < sample_bytes <= 8):
        raise ValueError("a form that makes no sense")
    return rate_hz, channels, sample_bytes


def with_header(pcm: bytes, form: Form) -> bytes:
    """Return raw PCM as a WAV file."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(form.channels)
        file.setsampwidth(form.sample_bytes)
        file.setframerate(form.rate_hz)
        file.writeframes(pcm)
    return content.getvalue()
