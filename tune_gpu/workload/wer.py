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


def word_error_rate(references: Sequence[str], transcripts: Sequence[str]) -> float | None:
    """Errors over words of the whole corpus, each clip's errors capped at its number of words; null for no clips.

    The cap keeps one transcript that loops from swamping the rest. A transcript of nothing counts as all words deleted.

    Raises:
        ValueError: lengths that differ, or a reference without words.
    """
    import jiwer

    if len(references) != len(transcripts):
        raise ValueError(f"{len(references)} references, {len(transcripts)} transcripts")
    errors = words = 0
    for reference, transcript in zip(references, transcripts, strict=True):
        expected, heard = normalise(reference), normalise(transcript)
        n_words = len(expected.split())
        if n_words == 0:
            raise ValueError(f"the reference {reference!r} has no words")
        if heard.strip():
            counts = jiwer.process_words(expected, heard)
            errors += min(n_words, counts.substitutions + counts.deletions + counts.insertions)
        else:
            errors += n_words
        words += n_words
    return errors / words if words else None
