"""Choose conversations that can be spoken from those of the package chitchat-dataset (MIT): people who typed to one another.

Its texts are informal, so only stretches are taken in which each utterance of the caller is written as it is spoken: such an utterance is its own
exact transcript.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SPOKEN = re.compile(r"[A-Z][A-Za-z' ,.?!]*[.?!]")
_WORD = re.compile(r"[A-Za-z']+")
_NOT_SPOKEN_ALIKE = frozenset({"ha", "hmm", "um", "uh", "nah", "ya", "wow", "yup", "yep", "yea", "its", "lets"})
"""Words of the dictionary that a recogniser writes in several ways, or leaves out, or that people type for another word."""
LEAST_TURNS = 4
_WORDS = range(2, 26)
"""Number of words of an utterance."""
_LONGEST_ANSWER = 60
"""Words."""


@dataclass(frozen=True)
class Exchange:
    """What the caller says, and what was answered."""

    says: str
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """One conversation."""

    name: str
    exchanges: tuple[Exchange, ...]


def choose(conversations: Mapping[str, Any], dictionary: Collection[str], count: int) -> list[Dialogue]:
    """Return up to `count` conversations that can be spoken, in the order of the data.

    Args:
        conversations: id -> conversation, as the package has them.
        dictionary: words that the synthesiser knows, in lower case.
        count: how many are wanted.

    Raises:
        KeyError, TypeError: the data have another form.
    """
    found: list[Dialogue] = []
    for key, conversation in conversations.items():
        exchanges = _longest_stretch(_turns_of(conversation["messages"]), dictionary)
        if len(exchanges) >= LEAST_TURNS:
            found.append(Dialogue(f"{len(found):02d}-{key[:8]}", exchanges))
            if len(found) == count:
                break
    return found


def _turns_of(messages: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """Return what was said in turn: messages of one sender that follow one another are one turn."""
    turns: list[tuple[str, list[str]]] = []
    for message in (message for group in messages for message in group):
        if not turns or turns[-1][0] != message["sender"]:
            turns.append((message["sender"], []))
        turns[-1][1].append(message["text"].strip())
    return [" ".join(texts) for _, texts in turns]


def _longest_stretch(turns: Sequence[str], dictionary: Collection[str]) -> tuple[Exchange, ...]:
    return max((tuple(_stretch(turns[start:], dictionary)) for start in range(len(turns))), key=len, default=())


def _stretch(turns: Sequence[str], dictionary: Collection[str]) -> Iterator[Exchange]:
    for says, answer in zip(turns[::2], turns[1::2], strict=False):
        if not _is_spoken(says, dictionary) or not _is_answer(answer):
            return
        yield Exchange(says, answer)


def _is_spoken(text: str, dictionary: Collection[str]) -> bool:
    words = _WORD.findall(text.lower())
    known = all(word in dictionary and word not in _NOT_SPOKEN_ALIKE for word in words)
    return known and len(words) in _WORDS and _SPOKEN.fullmatch(text) is not None


def _is_answer(text: str) -> bool:
    return text.isascii() and text.isprintable() and 1 <= len(text.split()) <= _LONGEST_ANSWER
