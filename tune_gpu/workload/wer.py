"""Recognition errors: in words as Whisper's own evaluation counts them, or in characters where blanks do not separate words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from tune_gpu.workload.spelling import units

_NUMERALS_KNOWN = frozenset({"da", "de", "es", "fr", "it", "nl", "pt"})
"""Languages besides English whose spelled numbers text2num reads."""


@cache
def _normalizer() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Apply Whisper's English normalisation, and write numerals digit by digit: "ten", "10" and "1 0" become the same words.

    Whisper's normaliser joins consecutive number words ("one two three" becomes "123") but leaves "1, 2, 3" apart, so that a correct
    transcript of a count would be all wrong. It also leaves a lone full stop of two ("well.."), which nobody says.
    """
    words = re.sub(r"\bone\b", "1", str(_normalizer()(text)))
    return " ".join(word for word in re.sub(r"(\d)", r" \1 ", words).split() if word.strip("."))


def units_of(text: str, language: str = "en") -> list[str]:
    """Return the words of a text, normalised by the rules of its language, or its characters if `languages.error_unit` is `character`."""
    return normalise(text).split() if language == "en" else units(text, language)


@lru_cache(maxsize=1024)  # a resampling counts the same turns again and again, and normalising a text takes most of its time
def word_errors(reference: str, transcript: str, language: str = "en") -> tuple[int, int]:
    """Return the errors of one clip, capped at its number of words (or characters), and that number. In an empty transcript all of them are
    deleted.

    The cap keeps one looping transcript from dominating the rate.

    Raises:
        ValueError: the reference has no words.
    """
    expected, actual = units_of(reference, language), units_of(transcript, language)
    if not expected:
        raise ValueError(f"the reference {reference!r} has no words")
    errors = _edits(expected, actual)
    if errors and language in _NUMERALS_KNOWN and any(word.isdigit() for word in (*expected, *actual)):
        errors = min(errors, _edits(_in_digits(expected, language), _in_digits(actual, language)))
    return min(len(expected), errors), len(expected)


def word_error_rate(references: Sequence[str], transcripts: Sequence[str], language: str = "en") -> float | None:
    """Return errors over words (or characters) of the whole corpus, or None without clips. `word_errors` counts the errors of each clip.

    Raises:
        ValueError: the lengths differ, or a reference has no words.
    """
    if len(references) != len(transcripts):
        raise ValueError(f"{len(references)} references, {len(transcripts)} transcripts")
    counted = [word_errors(reference, transcript, language) for reference, transcript in zip(references, transcripts, strict=True)]
    words = sum(n_words for _, n_words in counted)
    return sum(errors for errors, _ in counted) / words if words else None


def _edits(expected: list[str], actual: list[str]) -> int:
    import jiwer

    if not actual:
        return len(expected)
    counts = jiwer.process_words(" ".join(expected), " ".join(actual))
    return int(counts.substitutions + counts.deletions + counts.insertions)


def _in_digits(words: list[str], language: str) -> list[str]:
    """Write spelled numbers as numerals, so that the way a number is written is no error."""
    from text_to_num import alpha2digit

    return str(alpha2digit(" ".join(words), language, threshold=0)).split()
