"""Recognition errors in many languages: what is spoken alike costs nothing, what makes another word does."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.word_errors import main
from tune_gpu.config.languages import LANGUAGES, WITHOUT_BLANKS, error_unit
from tune_gpu.workload.wer import normalise, units_of, word_error_rate, word_errors

SENTENCES = {
    "am": "ሰላም፡ለዓለም፡ሁሉ።", "ar": "ذهب الولد إلى المدرسة.", "bn": "আমি ভাত খাই।", "bo": "བོད་སྐད་ལེགས་པོ།", "ca": "L'hospital té una col·lecció.",
    "cs": "Žluťoučký kůň úpěl.", "de": "Straße, Maß und Öl!", "el": "Ο λόγος του ανθρώπου.", "es": "¿Dónde está el niño?", "fa": "من به مدرسه می‌روم.",
    "fi": "Hyvää yötä, äiti!", "fr": "L'eau est là, aujourd'hui.", "gu": "હું ગુજરાતી બોલું છું.", "haw": "ʻO ia ka ʻōlelo Hawaiʻi.", "he": "שלום לכל העולם.",
    "hi": "मैं हिन्दी बोलता हूँ।", "hy": "Ինչպե՞ս ես դու։", "ja": "今日は、いい天気ですね。", "ka": "გამარჯობა მსოფლიო!", "km": "ខ្ញុំស្រឡាញ់ភាសាខ្មែរ។",
    "kn": "ನಾನು ಕನ್ನಡ ಮಾತನಾಡುತ್ತೇನೆ.", "ko": "안녕하세요, 세계!", "lo": "ສະບາຍດີ, ນ້ຳ.", "ml": "ഞാൻ മലയാളം സംസാരിക്കുന്നു.", "my": "မြန်မာစာ။",
    "pl": "Zażółć gęślą jaźń.", "ru": "Всё хорошо, друзья!", "si": "ශ්‍රී ලංකාව ලස්සනයි.", "ta": "நான் தமிழ் பேசுகிறேன்.", "te": "నేను తెలుగు మాట్లాడతాను.",
    "th": "สวัสดีครับ น้ำเย็น", "tr": "Iğdır'da ılık İzmir.", "uk": "П'ять об'єктів, їжа.", "ur": "میں اردو بولتا ہوں۔", "uz": "Oʻzbekiston togʻlari.",
    "vi": "Tôi nói tiếng Việt.", "yi": "אַ גוטן טאָג.", "yue": "我哋去飲茶啦！", "zh": "今天天气很好，我们去公园。",
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "reference", "transcript", "errors", "units"),
    [
        ("zh", "今天天气很好我们去公园", "今天天气很好我们去商店", 2, 11),
        ("zh", "我用 iPhone。", "我用ｉＰｈｏｎｅ", 0, 8),
        ("yue", "我哋去飲茶", "我地去飲茶", 1, 5),
        ("ja", "データを、２つ", "ﾃﾞｰﾀを2つ", 0, 6),
        ("ja", "はし", "ばし", 1, 2),
        ("th", "น้ำ เย็น", "นํ้าเย็น", 0, 4),
        ("th", "ใกล้", "ไกล", 2, 3),
        ("th", "น้ำ", "นำ้", 0, 1),
        ("th", "แม่", "เเม่", 0, 2),
        ("lo", "ແມ່", "ເເມ່", 0, 2),
        ("lo", "ນ້ຳ", "ນໍ້າ", 0, 1),
        ("my", "က၏", "က", 1, 2),
        ("km", "ភាសា ខ្មែរ", "ភាសាខ្មែរ។", 0, 4),
        ("bo", "བོད་ཡིག", "བོད་ཡག", 1, 4),
        ("fr", "deux euros", "2 euros", 0, 2),
        ("fr", "deux euros", "3 euros", 1, 2),
        ("fr", "l'eau est là", "L’eau est la", 1, 4),
        ("fr", "un an", "une an", 1, 2),
        ("fr", "l'Œuvre, ex æquo", "l'oeuvre ex aequo", 0, 4),
        ("de", "einundzwanzig Grad", "21 Grad", 0, 2),
        ("de", "geht's", "gehts", 0, 1),
        ("de", "schon", "schön", 1, 1),
        ("es", "año", "ano", 1, 1),
        ("ca", "col·lecció", "COL·LECCIÓ", 0, 1),
        ("tr", "IŞIK İZMİR'DE", "ışık izmir’de", 0, 2),
        ("tr", "ılık", "ilik", 1, 1),
        ("az", "QIZ", "qız", 0, 1),
        ("el", "ΛΟΓΟΣ", "λογος", 0, 1),
        ("ru", "всё", "все", 1, 1),
        ("uk", "п'ять", "п’ять", 0, 1),
        ("uk", "п'ять", "пять", 1, 1),
        ("hi", "मैं किताब २", "मैं कतब 2", 1, 3),
        ("bn", "হঠাত্\u200d", "হঠাৎ", 0, 1),
        ("ml", "അവന്\u200d", "അവൻ", 0, 1),
        ("ta", "தமிழ்", "தமிழ", 1, 1),
        ("si", "ශ්‍රී", "ශ්රී", 0, 1),
        ("ar", "كَتَبَ الوَلَدُ", "كتب الولد", 0, 2),
        ("ar", "الكـــتاب ٣", "الكتاب 3", 0, 2),
        ("fa", "می‌روم كتاب", "میروم کتاب", 0, 2),
        ("he", "שָׁלוֹם צה״ל", 'שלום צה"ל', 0, 2),
        ("yi", "אָט", "אט", 1, 1),
        ("hy", "ինչպե՞ս ես", "ինչպես ես", 0, 2),
        ("ko", "안녕하세요 세계", "안녕하세요 세게", 1, 2),
        ("vi", "má", "mà", 1, 1),
        ("vi", unicodedata.normalize("NFD", "tiếng Việt"), "tiếng Việt", 0, 2),
        ("haw", "paʻu", "pau", 1, 1),
        ("uz", "oʻ togʻ", "o'tog'", 2, 2),
        ("mt", "ta' Malta", "ta’ Malta", 0, 2),
        ("ro", "şi ţară", "și țară", 0, 2),
        ("am", "ሰላም፡ለዓለም", "ሰላም ለዓለም።", 0, 2),
        ("fr", "rendez-vous [rires]", "rendez vous", 0, 2),
    ],
)  # fmt: skip
def test_errors_are_counted_by_the_rules_of_the_language(language: str, reference: str, transcript: str, errors: int, units: int) -> None:
    assert word_errors(reference, transcript, language) == (errors, units)


def test_english_keeps_whispers_own_normaliser() -> None:
    assert units_of("I'm ten, won't you? £2", "en") == normalise("I'm ten, won't you? £2").split() == ["i", "am", "1", "0", "will", "not", "you", "£", "2"]
    assert word_errors("ten apples", "10 apples") == word_errors("ten apples", "10 apples", "en") == (0, 3)


@pytest.mark.parametrize("language", SENTENCES)
def test_case_punctuation_and_encoding_cost_nothing(language: str) -> None:
    sentence = SENTENCES[language]
    bare = "".join(" " if unicodedata.category(letter)[0] in "PSZ" and letter not in "'·՞" else letter for letter in sentence)
    shouted = sentence if language in ("tr", "hy") else sentence.upper()
    for transcript in (sentence, bare, shouted, f"«{sentence}» …!?", unicodedata.normalize("NFD", sentence), unicodedata.normalize("NFC", sentence), f"\ufeff {sentence}\u200e"):
        errors, units = word_errors(sentence, transcript, language)
        assert errors == 0, (transcript, units_of(sentence, language), units_of(transcript, language))
        assert units > 0


@pytest.mark.parametrize("language", ["bn", "gu", "hi", "km", "kn", "lo", "ml", "my", "si", "ta", "te", "th", "yi"])
def test_every_mark_of_a_word_counts(language: str) -> None:
    """Each vowel sign left out makes another word; Whisper's own normaliser loses all of them on both sides."""
    sentence = SENTENCES[language]
    spelled = units_of(sentence, language)
    marks = [at for at, letter in enumerate(sentence) if unicodedata.category(letter) in ("Mn", "Mc")]
    assert marks
    for at in marks:
        assert units_of(sentence[:at] + sentence[at + 1 :], language) != spelled
        assert word_errors(sentence, sentence[:at] + sentence[at + 1 :], language)[0] >= 1


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(LANGUAGES)), st.text(max_size=40), st.text(max_size=40))
def test_no_text_breaks_the_count(language: str, reference: str, transcript: str) -> None:
    try:
        errors, units = word_errors(reference, transcript, language)
    except ValueError:
        assert not units_of(reference, language)
        return
    assert 0 <= errors <= units
    assert units > 0
    assert word_errors(reference, reference, language) == (0, units)
    assert all(" " not in unit for unit in units_of(transcript, language))


def test_a_character_is_what_a_reader_takes_for_one() -> None:
    assert units_of("กำลัง", "th") == ["กำ", "ลั", "ง"]
    assert {language for language in LANGUAGES if error_unit(language) == "character"} == WITHOUT_BLANKS


def test_the_rate_of_a_corpus_is_by_language_too() -> None:
    assert word_error_rate(["今天", "公园"], ["今天", "商店"], "zh") == 0.5
    assert word_error_rate(["今天"], ["  。"], "zh") == 1.0


def test_a_file_of_pairs_is_counted_row_by_row(tmp_path: Path) -> None:
    path, out = tmp_path / "pairs.tsv", tmp_path / "out.json"
    path.write_text("note\tlanguage\treference\ttranscript\nx\tzh\t今天天气很好我们去公园\t今天天气很好我们去商店\ny\tfr\tdeux euros\t2 euros\n", encoding="utf-8-sig")
    result = CliRunner().invoke(main, [str(path), "--json", str(out)])
    assert result.exit_code == 0
    assert "CER  18.2 %  2 of 11 characters" in result.output
    first, second = json.loads(out.read_text())
    assert first == {
        "language": "zh", "reference": "今天天气很好我们去公园", "transcript": "今天天气很好我们去商店", "errors": 2, "units": 11, "unit": "character",
    }  # fmt: skip
    assert (second["errors"], second["units"], second["unit"]) == (0, 2, "word")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("language\treference\ttranscript\njp\ta\tb\n", "line 2, language=jp: no known language code. Use ja (Japanese)."),
        ("language\treference\nfr\ta\n", "no column transcript"),
        ("language\treference\n", "no column transcript"),
        ("", "no column language, reference, transcript"),
        ("language\treference\ttranscript\nfr\t?!\tb\n", "line 2: the reference '?!' has no words"),
    ],
)
def test_a_file_that_cannot_be_counted_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(content)
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2
    assert message in result.output
