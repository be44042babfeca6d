"""Decode audio from outside within limits, by FFmpeg (PyAV, which faster-whisper installs), in a container that its first bytes identify.

FFmpeg's own detection would also accept playlists, which open other files and addresses.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

SAMPLE_RATE_HZ = 16000
MAX_BYTES = 64 * 2**20
"""Largest file or upload, in bytes."""
MAX_S = 600.0
"""Longest audio in seconds, whatever other limits allow: a small compressed file may hold days."""
_RATES_HZ = (4000, 384000)
_LOUDEST = 2.0**31
"""Largest magnitude of a float sample: some files store 32-bit integers as floats. Anything larger is not audio."""
_MOST_BAD_PACKETS = 50
_EMPTY = "it holds no samples"


class NotAudio(ValueError):
    """Audio that cannot be decoded, with the reason."""


class TooLong(NotAudio):
    """Audio that lasts longer than allowed."""


def decode(content: bytes, limit_s: float = MAX_S) -> np.ndarray:
    """Return the samples as float32 in [-1, 1], mono (the mean of all channels), 16 kHz.

    Sizes in a header that a streaming writer left open are ignored: the audio extends to the end of the file. Floats beyond [-1, 1] are
    scaled down by their peak.

    Raises:
        NotAudio: the content is not audio, or is damaged, empty or too long (`TooLong`).
    """
    import av

    if content[:4] == b"RIFX":  # FFmpeg would read its big-endian samples as little-endian, as noise
        samples, rate = _big_endian(content)
        if len(samples) > limit_s * rate:
            raise TooLong(f"lasts more than {limit_s:g} s")
        return _resampled(_in_range(samples), rate)
    container = _container(content)
    parts: list[np.ndarray] = []
    n_samples, rate = 0, 0
    try:
        with av.open(io.BytesIO(content), format=container, metadata_errors="ignore") as source:
            if not source.streams.audio:
                raise NotAudio("it holds no sound")
            for frame in _frames(source):
                rate = rate or _checked_rate(frame.sample_rate)
                if frame.sample_rate != rate:
                    raise NotAudio("its sample rate changes within the file")
                n_samples += frame.samples
                if n_samples > limit_s * rate:
                    raise TooLong(f"lasts more than {limit_s:g} s")
                parts.append(_mono(frame))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, NotAudio):
            raise
        raise NotAudio(f"FFmpeg cannot read it ({getattr(error, 'strerror', None) or error})") from error
    if not n_samples:
        raise NotAudio(_EMPTY)
    return _resampled(_in_range(np.concatenate(parts)), rate)


def _container(content: bytes) -> str:
    """Return FFmpeg's name of the container. Raise NotAudio for another."""
    start, kind = content[:4], content[8:12]
    if start in (b"RIFF", b"RF64", b"BW64") and kind == b"WAVE":
        return "wav"
    if start == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return "aiff"
    if content[4:8] == b"ftyp":
        return "mov"
    known = {b"fLaC": "flac", b"OggS": "ogg", b"\x1a\x45\xdf\xa3": "matroska", b"caff": "caf"}
    if start in known:
        return known[start]
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "aac"
    if start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0):
        return "mp3"
    raise NotAudio("it is empty" if not content else "it is not a WAV, FLAC, MP3, Ogg, MP4, Matroska or AIFF file")


def _big_endian(content: bytes) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings(action="ignore", category=wavfile.WavFileWarning):  # chunks of metadata are no error
            rate, samples = wavfile.read(io.BytesIO(content))
    except Exception as error:  # the reader raises whatever a broken header leads to
        raise NotAudio(f"it is a damaged big-endian WAV ({error or type(error).__name__})") from error
    if not samples.size:
        raise NotAudio(_EMPTY)
    return _averaged(_as_floats(samples).reshape(len(samples), -1)), _checked_rate(rate)


def _frames(source: Any) -> Iterator[Any]:
    """Yield the decoded frames, without damaged packets, as faster-whisper does."""
    import av

    bad = 0
    for packet in source.demux(audio=0):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            bad += 1
            if bad > _MOST_BAD_PACKETS:
                raise NotAudio("it is damaged") from error
            continue
        yield from frames


def _checked_rate(rate: int) -> int:
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise NotAudio(f"its sample rate is {rate} Hz, not {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz")
    return rate


def _mono(frame: Any) -> np.ndarray:
    samples = _as_floats(frame.to_ndarray())
    return _averaged(samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels))


def _as_floats(given: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused as such
        samples = given.astype(np.float32)
    if given.dtype == np.uint8:
        return np.asarray((samples - 128.0) / 128.0)
    return samples / float(np.iinfo(given.dtype).max + 1) if given.dtype.kind == "i" else samples


def _averaged(by_channel: np.ndarray) -> np.ndarray:
    if by_channel.shape[1] == 1:
        return by_channel[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(by_channel.mean(axis=1))


def _in_range(samples: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(samples)):
        raise NotAudio("it holds samples that are not finite numbers")
    peak = float(np.max(np.abs(samples)))
    if peak > _LOUDEST:
        raise NotAudio(f"its samples reach {peak:.3g}, far beyond [-1, 1]")
    return samples / np.float32(peak) if peak > 1.0 else samples


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate == SAMPLE_RATE_HZ:
        return samples
    from scipy.signal import resample_poly  # the import takes half a second, which audio with the right rate need not wait for

    divisor = np.gcd(rate, SAMPLE_RATE_HZ)
    return np.asarray(resample_poly(samples, SAMPLE_RATE_HZ // divisor, rate // divisor).astype(np.float32))
