"""Word error rate, as Whisper's own evaluation counts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any


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


def word_errors(reference: str, transcript: str) -> tuple[int, int]:
    """Errors of one clip, capped at its number of words, and that number. A transcript of nothing counts as all words deleted.

    The cap keeps one transcript that loops from swamping the rest.

    Raises:
        ValueError: a reference without words.
    """
    import jiwer

    expected, heard = normalise(reference), normalise(transcript)
    n_words = len(expected.split())
    if n_words == 0:
        raise ValueError(f"the reference {reference!r} has no words")
    if not heard.strip():
        return n_words, n_words
    counts = jiwer.process_words(expected, heard)
    return min(n_words, counts.substitutions + counts.deletions + counts.insertions), n_words


def word_error_rate(references: Sequence[str], transcripts: Sequence[str]) -> float | None:
    """Errors over words of the whole corpus (each clip's as `word_errors` counts them); null for no clips.

    Raises:
        ValueError: lengths that differ, or a reference without words.
    """
    if len(references) != len(transcripts):
        raise ValueError(f"{len(references)} references, {len(transcripts)} transcripts")
    counted = [word_errors(reference, transcript) for reference, transcript in zip(references, transcripts, strict=True)]
    words = sum(n_words for _, n_words in counted)
    return sum(errors for errors, _ in counted) / words if words else None
