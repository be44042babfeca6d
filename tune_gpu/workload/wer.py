"""Recognition errors: of words as Whisper's own evaluation counts them, of characters where blanks do not part words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from tune_gpu.workload.spelling import units

_NUMERALS_KNOWN = frozenset({"da", "de", "es", "fr", "it", "nl", "pt"})
"""Languages besides English whose spelled numbers text2num reads."""


@cache
def _normalizer() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """Whisper's English normalisation, with numerals as their digits: "ten", "10" and "1 0" are the same words.

    Whisper's normaliser joins number words that follow each other ("one two three" becomes "123") but leaves "1, 2, 3" apart, so a
    count that was heard rightly would be all wrong; digit by digit they are equal.
    """
    words = re.sub(r"\bone\b", "1", str(_normalizer()(text)))
    return " ".join(re.sub(r"(\d)", r" \1 ", words).split())


def units_of(text: str, language: str = "en") -> list[str]:
    """The words of a text, normalised by the rules of its language; its characters where `languages.error_unit` says so."""
    return normalise(text).split() if language == "en" else units(text, language)


def word_errors(reference: str, transcript: str, language: str = "en") -> tuple[int, int]:
    """Errors of one clip, capped at its number of words (or characters), and that number. An empty transcript has all of them deleted.

    The cap keeps one transcript that loops from swamping the rest.

    Raises:
        ValueError: a reference without words.
    """
    expected, heard = units_of(reference, language), units_of(transcript, language)
    if not expected:
        raise ValueError(f"the reference {reference!r} has no words")
    errors = _edits(expected, heard)
    if errors and language in _NUMERALS_KNOWN and any(word.isdigit() for word in (*expected, *heard)):
        errors = min(errors, _edits(_in_digits(expected, language), _in_digits(heard, language)))
    return min(len(expected), errors), len(expected)


def word_error_rate(references: Sequence[str], transcripts: Sequence[str], language: str = "en") -> float | None:
    """Errors over words (or characters) of the whole corpus, each clip's as `word_errors` counts them; null for no clips.

    Raises:
        ValueError: lengths that differ, or a reference without words.
    """
    if len(references) != len(transcripts):
        raise ValueError(f"{len(references)} references, {len(transcripts)} transcripts")
    counted = [word_errors(reference, transcript, language) for reference, transcript in zip(references, transcripts, strict=True)]
    words = sum(n_words for _, n_words in counted)
    return sum(errors for errors, _ in counted) / words if words else None


def _edits(expected: list[str], heard: list[str]) -> int:
    import jiwer

    if not heard:
        return len(expected)
    counts = jiwer.process_words(" ".join(expected), " ".join(heard))
    return int(counts.substitutions + counts.deletions + counts.insertions)


def _in_digits(words: list[str], language: str) -> list[str]:
    """Spelled numbers as numerals: a number that was heard rightly is no error, however it is written."""
    from text_to_num import alpha2digit

    return str(alpha2digit(" ".join(words), language, threshold=0)).split()
