"""A folder of clips from outside: read rightly, or refused in one line that names the file."""

from __future__ import annotations

import codecs
import importlib.util
import io
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import AudioSettings
from tune_gpu.services import decoding
from tune_gpu.services.decoding import NotAudio, TooLong, decode
from tune_gpu.workload.audio import load_utterances, read_wav

TONE = np.sin(np.arange(16000) / 10.0) * 0.6
PCM = (TONE * 32767).astype("<i2").tobytes()


def wav(data: bytes, *, rate: int = 16000, channels: int = 1, bits: int = 16, tag: int = 1, size: int | None = None, riff: int | None = None) -> bytes:
    """A WAV with the header that is asked for, true or not."""
    width = bits // 8 * channels
    form = struct.pack("<IHHIIHH", 16, tag, channels, rate, rate * width, width, bits)
    size, riff = len(data) if size is None else size, 36 + len(data) if riff is None else riff
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + data


def extensible() -> bytes:
    form = struct.pack("<IHHIIHHHHI", 40, 0xFFFE, 1, 16000, 32000, 2, 16, 22, 16, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
    return b"RIFF" + struct.pack("<I", 60 + len(PCM)) + b"WAVEfmt " + form + b"data" + struct.pack("<I", len(PCM)) + PCM


def rf64() -> bytes:
    sizes = struct.pack("<IQQQI", 28, 72 + len(PCM), len(PCM), 16000, 0)
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    return b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVEds64" + sizes + b"fmt " + form + b"data" + struct.pack("<I", 0xFFFFFFFF) + PCM


def rifx() -> bytes:
    form = struct.pack(">IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    big = np.frombuffer(PCM, "<i2").astype(">i2").tobytes()
    return b"RIFX" + struct.pack(">I", 36 + len(big)) + b"WAVEfmt " + form + b"data" + struct.pack(">I", len(big)) + big


def encoded(container: str, codec: str, rate: int) -> bytes:
    """The tone by another codec, as a file that is only called .wav may be."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as target:
        stream = target.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        tone = np.sin(np.arange(rate) / 10.0 * 16000 / rate) * 0.6
        frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        fitted = av.AudioResampler(stream.codec_context.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*fitted.resample(frame), *fitted.resample(None)]:
            target.mux(stream.encode(piece))
        target.mux(stream.encode(None))
    return content.getvalue()


def clip(folder: Path, content: bytes, name: str = "clip.wav", text: bytes = b"hello world") -> AudioSettings:
    (folder / name).write_bytes(content)
    (folder / f"{Path(name).stem}.txt").write_bytes(text)
    return AudioSettings(source=str(folder))


@pytest.mark.parametrize(("sound", "text"), [("ONE.WAV", "ONE.txt"), ("one.wav", "ONE.TXT"), ("One.Wav", "one.Txt"), ("été.WaV", "ÉTÉ.txt"), ("e\u0301.wav", "\u00c9.txt")])
def test_names_are_read_without_regard_to_case_and_encoding(tmp_path: Path, sound: str, text: str) -> None:
    (tmp_path / sound).write_bytes(wav(PCM))
    (tmp_path / text).write_text("one two")
    (utterance,) = load_utterances(AudioSettings(source=str(tmp_path)))
    assert (utterance.name, utterance.reference, utterance.duration_s) == (Path(sound).stem, "one two", 1.0)


def test_names_that_differ_only_by_case_are_paired_exactly(tmp_path: Path) -> None:
    clip(tmp_path, wav(PCM), "a.wav", b"small")
    clip(tmp_path, wav(PCM), "A.wav", b"great")
    clip(tmp_path, wav(PCM), "._a.wav")  # as a Mac leaves them beside every file
    assert {utterance.name: utterance.reference for utterance in load_utterances(AudioSettings(source=str(tmp_path)))} == {"a": "small", "A": "great"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.wav", "a.WAV", "a.txt"), r"a\.wav: a\.WAV has the same text, a\.txt; their names differ only by case"),
        (("a.wav", "A.wav", "a.txt"), r"has the same text, a\.txt"),
        (("One.wav", "ONE.txt", "one.txt"), r"One\.wav: ONE\.txt and one\.txt may both be its text"),
        (("a.wav", "a.txt", "b.wav"), r"b\.wav: no b\.txt beside it"),
        (("a.wav",), r"no NAME\.wav with a NAME\.txt beside it"),
    ],
)
def test_names_that_leave_a_doubt_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(wav(PCM) if name.casefold().endswith("wav") else b"hello")
    with pytest.raises(UserError, match=message):
        load_utterances(AudioSettings(source=str(tmp_path)))


@pytest.mark.parametrize(
    "mark_and_encoding",
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_LE, "utf-32-le"), (b"", "utf-8")],
)
def test_byte_order_marks_name_the_encoding_of_a_text(tmp_path: Path, mark_and_encoding: tuple[bytes, str]) -> None:
    mark, encoding = mark_and_encoding
    (utterance,) = load_utterances(clip(tmp_path, wav(PCM), text=mark + "l'été à Kyōto".encode(encoding) + "\r\n".encode(encoding)), "fr")
    assert utterance.reference == "l'été à Kyōto"
    assert utterance.language == "fr"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello".encode("utf-16-le"), r"clip\.txt: not UTF-8 \(it holds zero bytes"),
        ("café".encode("latin-1"), r"clip\.txt: not UTF-8 \("),
        (codecs.BOM_UTF16_LE + b"abc", r"clip\.txt: not UTF-16-LE"),
        (b"", r"clip\.txt: no words"),
        (codecs.BOM_UTF8, r"clip\.txt: no words"),
        (b"a" * 100_000, r"clip\.txt: longer than"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_utterances(clip(tmp_path, wav(PCM), text=text))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF - 36, 10 * len(PCM)])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, None])
def test_sizes_that_a_streaming_writer_left_open_are_not_believed(size: int, riff: int | None) -> None:
    assert np.array_equal(decode(wav(PCM, size=size, riff=riff)), decode(wav(PCM)))


FLOATS = TONE.astype("<f4")
SAME = {
    "8 bit": wav((TONE * 127 + 128).astype(np.uint8).tobytes(), bits=8),
    "24 bit": wav(b"".join(struct.pack("<i", int(value * 2**23))[:3] for value in TONE), bits=24),
    "32 bit": wav((TONE * (2**31 - 1)).astype("<i4").tobytes(), bits=32),
    "float32": wav(FLOATS.tobytes(), tag=3, bits=32),
    "float64": wav(TONE.astype("<f8").tobytes(), tag=3, bits=64),
    "extensible": extensible(),
    "RF64": rf64(),
    "RIFX": rifx(),
    "stereo": wav(np.repeat(np.frombuffer(PCM, "<i2"), 2).tobytes(), channels=2),
    "nine channels": wav(np.repeat(np.frombuffer(PCM, "<i2"), 9).tobytes(), channels=9),
    "half a sample more": wav(PCM + b"x"),
    "FLAC": encoded("flac", "flac", 16000),
    "AIFF": encoded("aiff", "pcm_s16be", 16000),
    "MP3": encoded("mp3", "libmp3lame", 16000),
    "MP3 in WAV": encoded("wav", "libmp3lame", 16000),
    "Opus": encoded("ogg", "libopus", 48000),
    "ADPCM": encoded("wav", "adpcm_ms", 16000),
    "mu-law": encoded("wav", "pcm_mulaw", 16000),
    "48 kHz": encoded("wav", "pcm_s16le", 48000),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_of_sound_is_read_as_the_sound_it_is(form: str) -> None:
    """The tone comes out in its length, its loudness and its pitch (1600/(2 pi) = 255 Hz)."""
    decoded = decode(SAME[form])
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(16000, abs=1600)
    assert np.sqrt(np.mean(decoded[2000:14000] ** 2)) == pytest.approx(0.6 / np.sqrt(2), rel=0.06)  # LAME encodes at 95 %
    spectrum = np.abs(np.fft.rfft(decoded[2000:14000] * np.hanning(12000)))
    assert np.argmax(spectrum) * 16000 / 12000 == pytest.approx(254.6, abs=2)


@pytest.mark.parametrize("scale", [1.5, 32767.0, 2.0**31])
def test_floats_beyond_1_are_scaled_down_by_their_peak(scale: float) -> None:
    decoded = decode(wav((FLOATS * np.float32(scale / 0.6)).astype("<f4").tobytes(), tag=3, bits=32))
    assert np.max(np.abs(decoded)) == pytest.approx(1.0)
    assert np.allclose(decoded, FLOATS / 0.6, atol=1e-4)


def floats(*values: float, double: bool = False) -> bytes:
    return wav(np.array(values * 1000, "<f8" if double else "<f4").tobytes(), tag=3, bits=64 if double else 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (floats(0.5, np.nan), "not finite numbers"),
        (floats(0.5, -np.inf), "not finite numbers"),
        (floats(0.5, 1e300, double=True), "not finite numbers"),
        (floats(0.5, 1e30), r"reach 1e\+30"),
        (wav(b""), "holds no samples"),
        (b"", "it is empty"),
        (b"RIFF nothing", "it is not a WAV"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "it is not a WAV"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "it is not a WAV"),
        (wav(PCM)[:30], "FFmpeg cannot read it"),
        (wav(PCM, tag=999), "FFmpeg cannot read it"),
        (wav(PCM, channels=0), "FFmpeg cannot read it"),
        (wav(PCM, rate=1), "its sample rate is 1 Hz"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_files_name(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"clip\.wav: cannot be read as WAV .*{message}") as caught:
        load_utterances(clip(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = clip(tmp_path, wav(PCM))
    monkeypatch.setattr("tune_gpu.workload.audio.MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"clip\.wav: longer than"):
        load_utterances(settings)
    (tmp_path / "clip.wav").unlink()
    os.mkfifo(tmp_path / "clip.wav")
    with pytest.raises(UserError, match=r"clip\.wav: not a regular file"):
        load_utterances(settings)


def test_decoding_stops_at_the_longest_sound_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed file may hold days: it is left where the limit is, not measured to its end."""
    frames = 0

    def counting(frame: av.AudioFrame) -> np.ndarray:
        nonlocal frames
        frames += frame.samples
        return np.zeros(frame.samples, dtype=np.float32)

    monkeypatch.setattr(decoding, "_mono", counting)
    with pytest.raises(TooLong, match="more than 2 s"):
        decode(wav(PCM * 60), limit_s=2.0)
    assert frames <= 2 * 16000


def test_the_packaged_clips_are_what_they_were() -> None:
    """Recorded transcripts and latencies rest on them: bit for bit as SciPy reads them."""
    package = importlib.util.find_spec("pytest_audioeval")
    assert package is not None
    assert package.submodule_search_locations
    for utterance in load_utterances(AudioSettings()):
        path = Path(package.submodule_search_locations[0]) / "samples" / "audio" / "en" / f"{utterance.name}.wav"
        rate, samples = wavfile.read(path)
        assert rate == 16000
        assert np.array_equal(utterance.samples, samples)
        assert np.array_equal(read_wav(path), samples)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAME)), st.data())
def test_damaged_sound_is_read_or_refused(form: str, data: st.DataObject) -> None:
    content = bytearray(SAME[form][:6000])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(content))
    except NotAudio:
        return
    assert decoded.ndim == 1
    assert np.all(np.isfinite(decoded))
