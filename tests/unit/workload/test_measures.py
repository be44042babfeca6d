"""Arrivals, audio, percentiles and word error rate."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import AudioSettings
from tune_gpu.workload.arrivals import poisson_arrivals
from tune_gpu.workload.audio import add_noise, load_utterances
from tune_gpu.workload.percentiles import Distribution
from tune_gpu.workload.wer import normalise, word_error_rate

COUNT = "One two three four five six seven eight nine ten."


def test_arrivals_are_poisson() -> None:
    """Counts over many windows have the mean and the variance of a Poisson distribution (rate x duration = 20)."""
    counts = [len(poisson_arrivals(2.0, 10.0, np.random.default_rng(seed))) for seed in range(2000)]
    assert np.mean(counts) == pytest.approx(20, abs=0.5)
    assert np.var(counts) == pytest.approx(20, rel=0.15)


@given(st.floats(0, 50), st.floats(0, 5), st.integers(0, 2**32))
def test_arrivals_lie_in_the_window_in_order_and_depend_on_the_seed_only(rate: float, duration: float, seed: int) -> None:
    due = poisson_arrivals(rate, duration, np.random.default_rng(seed))
    assert due == sorted(due) == poisson_arrivals(rate, duration, np.random.default_rng(seed))
    assert all(0 <= moment < duration for moment in due)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_ordered_and_within_the_samples(samples: list[float]) -> None:
    found = Distribution.of(samples)
    assert found is not None
    slack = 1e-9 * max(samples) + 1e-9
    assert (
        min(samples) - slack <= found.p50 <= found.p90 + slack <= found.p95 + 2 * slack <= found.p99 + 3 * slack <= max(samples) + 4 * slack
    )
    assert found.n == len(samples)


def test_no_samples_are_no_distribution_and_nan_is_no_sample() -> None:
    assert Distribution.of([]) is None
    with pytest.raises(ValueError, match="not a measurement"):
        Distribution.of([1.0, float("nan")])


@pytest.mark.parametrize("transcript", ["1-2-345-678910.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.", "12345678910", COUNT.upper()])
def test_numbers_are_the_same_words_however_they_are_written(transcript: str) -> None:
    """Transcripts that Whisper tiny.en and base really gave for one clip, all heard rightly."""
    assert word_error_rate([COUNT], [transcript]) == 0.0


def test_ten_and_10_are_the_same_word() -> None:
    assert normalise("I have ten apples") == normalise("i have 10 apples.")


def test_a_stop_of_several_dots_is_no_word() -> None:
    assert word_error_rate(["Still in bed.. Well..."], ["Still in bed. Well."]) == 0


def test_wrong_missing_and_added_words_count() -> None:
    assert word_error_rate(["the quick brown fox"], ["the quick brown box"]) == 0.25
    assert word_error_rate(["the quick brown fox"], ["the quick fox"]) == 0.25
    assert word_error_rate(["the quick brown fox"], [""]) == 1.0
    assert word_error_rate([], []) is None


def test_a_transcript_that_loops_does_not_swamp_the_rest() -> None:
    looping = " ".join(["fox"] * 500)
    assert word_error_rate(["the quick brown fox", "hello world"], [looping, "hello world"]) == pytest.approx(4 / 6)


@given(st.lists(st.sampled_from(["alpha bravo", "charlie", "delta echo foxtrot"]), min_size=1, max_size=5), st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_rate_lies_between_0_and_1(references: list[str], transcript: str) -> None:
    rate = word_error_rate(references, [transcript] * len(references))
    assert rate is not None
    assert 0.0 <= rate <= 1.0


def test_references_and_transcripts_must_pair() -> None:
    with pytest.raises(ValueError, match="1 references, 2 transcripts"):
        word_error_rate(["a b"], ["a", "b"])
    with pytest.raises(ValueError, match="has no words"):
        word_error_rate(["?!"], ["a"])


def test_noise_has_the_ratio_that_was_asked_for_and_is_the_same_each_time() -> None:
    tone = np.sin(np.arange(160_000) / 10.0).astype(np.float32)
    noisy = add_noise(tone, 10.0, seed=1)
    ratio_db = 10 * np.log10(np.mean(tone**2) / np.mean((noisy - tone) ** 2))
    assert ratio_db == pytest.approx(10.0, abs=0.1)
    assert np.array_equal(noisy, add_noise(tone, 10.0, seed=1))


def test_the_packaged_clips_are_english_and_come_at_each_ratio() -> None:
    clips = load_utterances(AudioSettings(noise_snr_db=[None, 5.0]))
    assert {clip.name for clip in clips} >= {"counting", "counting@5dB", "hello_world", "quick_brown_fox"}
    assert all(1.0 < clip.duration_s < 5.0 for clip in clips)
    with wave.open(BytesIO(clips[0].wav_bytes)) as clip:
        assert (clip.getframerate(), clip.getnchannels(), clip.getsampwidth()) == (16000, 1, 2)


def folder_with(tmp_path: Path, samples: np.ndarray, rate: int = 16000) -> AudioSettings:
    wavfile.write(tmp_path / "clip.wav", rate, samples)
    (tmp_path / "clip.txt").write_text("hello world")
    return AudioSettings(source=str(tmp_path))


def test_a_folder_of_stereo_clips_at_another_rate_is_read(tmp_path: Path) -> None:
    stereo = (np.random.default_rng(0).uniform(-0.5, 0.5, (44100, 2)) * 32767).astype(np.int16)
    (clip,) = load_utterances(folder_with(tmp_path, stereo, 44100))
    assert clip.duration_s == pytest.approx(1.0, abs=0.001)
    assert clip.samples.ndim == 1


def test_clips_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is silent"):
        load_utterances(folder_with(tmp_path, np.zeros(1600, dtype=np.int16)))
    with pytest.raises(UserError, match=r"max_utterance_s=30 \(31\.0 s\)"):
        load_utterances(folder_with(tmp_path, np.ones(31 * 16000, dtype=np.int16)))
    settings = folder_with(tmp_path, np.ones(1600, dtype=np.int16))
    for nothing in (b"", b"um, [laughs]", b"?!"):
        (tmp_path / "clip.txt").write_bytes(nothing)
        with pytest.raises(UserError, match=r"clip\.txt: no words"):
            load_utterances(settings)
    (tmp_path / "clip.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match=r"clip\.txt: not UTF-8"):
        load_utterances(settings)
    (tmp_path / "clip.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(UserError, match=r"clip\.wav: cannot be read"):
        load_utterances(AudioSettings(source=str(tmp_path)))
    (tmp_path / "clip.txt").unlink()
    with pytest.raises(UserError, match=r"no NAME\.wav with a NAME\.txt"):
        load_utterances(AudioSettings(source=str(tmp_path)))
    with pytest.raises(UserError, match="no such folder"):
        load_utterances(AudioSettings(source=str(tmp_path / "nowhere")))
