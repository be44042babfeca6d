"""Synthetic texts of so many tokens: system prompts, answers, results of tools, what a search finds.

They are readable English words in no order that means anything. There is no tokenizer here, because it would be the model's: a text of N tokens has
N / `TOKENS_PER_WORD` words, so that its length in the model's tokens is approximate. The ratio was counted with the tokenizer of SmolLM2
(`tests/unit/workload/sessions/test_prompts.py` counts it again).
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from tune_gpu.workload.sessions.draws import uniform
from tune_gpu.workload.sessions.words import WORDS

TOKENS_PER_WORD = 1.09
"""Of these texts, with their full stops."""
TOKENS_PER_WORD_OF_TEXT = 1.3
"""Of usual English text, with its punctuation, rarer words and names."""
_LENGTH = 1 << 16
_SENTENCE = 11
"""Words of a sentence, in the mean."""


@cache
def _book() -> tuple[str, list[int]]:
    """Return a long text of words with the full stops and capitals of sentences, and where each word begins. It is written twice, so that a part
    may run over its end. All synthetic texts are cut from it."""
    at = np.arange(_LENGTH)
    chosen = (uniform(0, 0, at, 0, 0) * len(WORDS)).astype(np.int64)
    ends = uniform(0, 0, at, 1, 0) < 1 / _SENTENCE
    begins = np.roll(ends, 1)
    drawn = zip(chosen.tolist(), ends.tolist(), begins.tolist(), strict=True)
    words = [(WORDS[word].capitalize() if begin else WORDS[word]) + (". " if end else " ") for word, end, begin in drawn]
    return "".join(words * 2), [0, *itertools.accumulate(len(word) for word in words * 2)]


def text_of(tokens: int, u: float) -> str:
    """Return about as many tokens of words.

    Args:
        tokens: at least 1.
        u: in [0, 1), which words. Texts of the same `u` begin alike, whatever their lengths.
    """
    book, begins = _book()
    at, left = int(u * _LENGTH) % _LENGTH, words_of(tokens)
    text = book[begins[at] : begins[at + min(left, _LENGTH)]]
    while (left := left - _LENGTH) > 0:
        text += book[begins[at] : begins[at + min(left, _LENGTH)]]
    return f"{text[0].upper()}{text[1:].rstrip('. ')}."


def words_of(tokens: int) -> int:
    """Return how many words a synthetic text of this many tokens has."""
    return max(1, round(tokens / TOKENS_PER_WORD))


def tokens_of(text: str) -> int:
    """Return about how many tokens an English text has."""
    return max(1, round(TOKENS_PER_WORD_OF_TEXT * len(text.split())))


def clock(u: float, turn: int) -> str:
    """Return the line of a clock. It is the plan's and not this machine's, so that prompts are equal for all candidates.

    Args:
        u: in [0, 1), when in a day the session began.
        turn: its number; the clock moves 20 to 30 seconds from one turn to the next.
    """
    seconds = int(u * 86_400) + 23 * turn
    hours, rest = divmod(seconds % 86_400, 3600)
    return f"The time is {hours:02}:{rest // 60:02}:{rest % 60:02}."
