"""The folder of the demonstration's speech, made by the real synthesiser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tune_gpu.workload.audio import read_wav
from tune_gpu.workload.demonstration.dialogues import Dialogue, Exchange
from tune_gpu.workload.demonstration.speech import CONVERSATIONS, write_speech
from tune_gpu.workload.demonstration.voices import VOICES, Synthesiser

pytest.importorskip("hibari")
TALK = (Exchange("How are you?", "Fine."), Exchange("What do you like to read?", "Maps."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("speech")
    write_speech(made, [Dialogue("00-a", TALK), Dialogue("01-b", TALK)], Synthesiser())
    return made


def pitch_hz(samples: np.ndarray) -> float:
    """Return the fundamental of the loudest tenth of a second, by autocorrelation."""
    loudest = max((samples[at : at + 1600] for at in range(0, len(samples) - 1600, 800)), key=lambda part: float(np.sum(part**2)))
    same = np.correlate(loudest, loudest, "full")[len(loudest) - 1 :]
    return 16000 / (40 + int(np.argmax(same[40:200])))


def test_each_utterance_is_a_clip_with_its_words_beside_it(folder: Path) -> None:
    for name in ("00-a", "01-b"):
        clips = sorted((folder / name).glob("*.wav"))
        assert [clip.with_suffix(".txt").read_text().strip() for clip in clips] == [exchange.says for exchange in TALK]
        assert all(0.4 < len(read_wav(clip)) / 16000 < 4 for clip in clips)


def test_conversations_are_kept_as_messages_in_the_order_of_folders(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / CONVERSATIONS).read_text().splitlines()]
    assert [line["id"] for line in lines] == sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert [message["role"] for message in lines[0]["messages"]] == ["user", "assistant"] * len(TALK)
    assert [line["voice"] for line in lines] == [voice.name for voice in VOICES]


def test_the_second_voice_is_lower_at_the_same_tempo(folder: Path) -> None:
    high, low = (read_wav(folder / name / "01.wav") for name in ("00-a", "01-b"))
    assert pitch_hz(low) < 0.93 * pitch_hz(high)
    assert len(low) == pytest.approx(len(high), rel=0.1)


def test_the_same_words_give_the_same_clip(folder: Path, tmp_path: Path) -> None:
    write_speech(tmp_path, [Dialogue("00-a", TALK)], Synthesiser())
    assert (tmp_path / "00-a" / "00.wav").read_bytes() == (folder / "00-a" / "00.wav").read_bytes()
