"""Spoken sessions: a folder for each, with `NN.wav` beside `NN.txt`. Clips that lie in the folder itself are sessions of one turn."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tune_gpu.common.errors import UserError
from tune_gpu.common.wording import counted
from tune_gpu.config.schema import AudioSettings
from tune_gpu.services.decoding import SAMPLE_RATE_HZ
from tune_gpu.workload.audio import Utterance, add_noise, read_wav
from tune_gpu.workload.clip_files import clips_of, read_reference
from tune_gpu.workload.sources.lines import MOST_CONVERSATIONS, Place
from tune_gpu.workload.sources.values import Conversation, Exchange

_LONGEST_S = 4 * 3600.0
"""Speech of a whole source, which is kept in memory."""


@dataclass(frozen=True)
class ClipFolder:
    """A folder of spoken sessions."""

    folder: Path
    place: Place
    settings: AudioSettings
    language: str = "en"
    spoken: bool = True
    """Whether the clips are read. Otherwise what is said in them is used as texts."""
    synthetic = False
    _unused: list[str] = field(default_factory=list, init=False, compare=False)

    def conversations(self) -> Sequence[Conversation]:
        """Return one conversation for each folder, by name. Raise UserError for a clip that cannot be read, or has no text."""
        try:
            return self._conversations()
        except OSError as error:
            raise self.place.error(f"{error.filename}: cannot be read ({error.strerror})", "Make it readable, or move it away.") from error

    def _conversations(self) -> Sequence[Conversation]:
        self._unused.clear()
        inside = [path for path in sorted(self.folder.iterdir()) if not path.name.startswith(".")]
        sessions = [path for path in inside if path.is_dir()]
        if len(sessions) > MOST_CONVERSATIONS:
            raise self.place.error(f"more than {MOST_CONVERSATIONS} folders", "Keep fewer sessions.")
        found, length_s = [], 0.0
        for session in sessions:
            exchanges = [self._exchange(f"{session.name}/", *pair, session.name) for pair in self._pairs(session)]
            if not exchanges:
                raise self.place.at(f"folder {session.name}").error("a session without turns", "Add NN.wav with NN.txt, or move the folder away.")
            found.append(Conversation(session.name, tuple(exchanges)))
        for clip, text in self._pairs(self.folder):
            found.append(Conversation(clip.stem, (self._exchange("", clip, text, clip.stem),)))
        length_s = sum(exchange.clip.duration_s for one in found for exchange in one.exchanges if exchange.clip is not None)
        if length_s > _LONGEST_S:
            raise self.place.error(f"{length_s / 3600:.1f} hours of speech, more than {_LONGEST_S / 3600:g}", "Keep fewer sessions.")
        return found

    def notes(self) -> Sequence[str]:
        """Return how many files are not used."""
        if not self._unused:
            return ()
        return [f"{counted(len(self._unused), 'file')} not used: neither NN.wav nor its NN.txt (the first: {self._unused[0]})"]

    def _pairs(self, folder: Path) -> list[tuple[Path, Path]]:
        """Return the clips of a folder with their texts, in the order of their numbers, and remember the files that belong to none."""
        inside = "" if folder == self.folder else f"{folder.name}/"
        try:
            pairs = clips_of(folder)
        except UserError as error:
            raise UserError(f"{self.place.source}: {inside}{error}") from error
        used = {path for pair in pairs for path in pair}
        others = [path for path in sorted(folder.iterdir()) if path not in used and (inside or not path.is_dir()) and not path.name.startswith(".")]
        self._unused.extend(f"{inside}{path.name}" for path in others)
        return sorted(pairs, key=lambda pair: _in_order(pair[0].stem))

    def _exchange(self, inside: str, clip: Path, text: Path, session: str) -> Exchange:
        try:
            says = read_reference(text, self.language)
            return Exchange(says, clip=self._utterance(inside, clip, says, session) if self.spoken else None)
        except UserError as error:
            raise UserError(f"{self.place.source}: {inside}{error}") from error

    def _utterance(self, inside: str, clip: Path, says: str, session: str) -> Utterance:
        samples = read_wav(clip)
        limit_s, length_s = self.settings.max_utterance_s, len(samples) / SAMPLE_RATE_HZ
        if length_s > limit_s:
            raise UserError(f"{clip.name}: longer than workload.audio.max_utterance_s={limit_s:g} ({length_s:.1f} s). Cut it, or raise the limit.")
        if not np.any(samples):
            raise UserError(f"{clip.name}: the clip is silent and has no word error rate. Remove it.")
        ratios = self.settings.noise_snr_db or [None]
        snr_db = ratios[zlib.crc32(os.fsencode(session)) % len(ratios)]  # one line is as noisy at its end as at its beginning
        name = f"{inside}{clip.stem}" if snr_db is None else f"{inside}{clip.stem}@{snr_db:g}dB"
        return Utterance(name, samples if snr_db is None else add_noise(samples, snr_db, zlib.crc32(os.fsencode(name))), says, self.language)


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return a key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
