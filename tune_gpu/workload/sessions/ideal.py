"""The best that a prefix cache can do for a sequence of prompts, and the least size with which it does it. Pure.

Texts are compared by characters and counted in tokens: where two prompts part is a place in their texts, and how many tokens lie before it follows from
what the server counted of the prompts that end there or on both sides of it (`_tokens_at`). No tokenizer is needed, and none could be had of a server
that is not ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A prompt. Their order is that of sending."""

    text: str
    tokens: int | None = None
    """By the server's count; None where it was never reported."""
    answer: str = ""
    """The part of its answer with which a later prompt may go on."""
    answer_tokens: int = 0
    scored: bool = True
    """It counts; the others fill the cache."""


@dataclass(frozen=True)
class Ideal:
    """A cache in which nothing is ever missing that was there."""

    prompt_tokens: int
    """Of the prompts that count."""
    hit_tokens: int
    """Of them, those that the cache had: whole blocks, and never a whole prompt."""
    working_set_tokens: int
    """The least cache that evicts by least recent use and has all of these hits."""


@dataclass
class _Sent:
    """A prompt that lies in the cache."""

    text: str
    anchors: list[tuple[int, float]]
    """Places in the text whose tokens are known, in order: characters and tokens."""
    blocks: list[int]


@dataclass(frozen=True)
class _Access:
    """The blocks of a prompt and its answer, and how many of them an ideal cache has."""

    blocks: Sequence[int]
    hits: int
    scored: bool


def ideal_of(prompts: Sequence[Prompt], block_size: int) -> Ideal | None:
    """Return the ideal for prompts that are sent one after another, or None if the server counted none of them."""
    counted = [prompt for prompt in prompts if prompt.tokens is not None and prompt.text]
    if not counted or block_size < 1:
        return None
    per_character = sum(prompt.tokens or 0 for prompt in counted) / sum(len(prompt.text) for prompt in counted)
    accesses, total = [], 0
    sent: list[_Sent] = []
    n_blocks = 0
    for prompt in prompts:
        tokens = round(len(prompt.text) * per_character) if prompt.tokens is None else prompt.tokens
        whole, ends = prompt.text + prompt.answer, tokens + prompt.answer_tokens
        shared, before = _longest_shared(sent, whole)
        known = [] if before is None else [anchor for anchor in before.anchors if anchor[0] <= shared]
        end = [(len(prompt.text), float(tokens))]
        places = [*known, *end, *([(len(whole), float(ends))] if prompt.answer else [])]
        same = 0 if before is None else min(int(_tokens_at(shared, places)) // block_size, len(before.blocks))
        hits = min(same, max(0, tokens - 1) // block_size)  # the last token is always computed
        n_new = max(0, ends // block_size - same)
        blocks = [*(before.blocks[:same] if before is not None else []), *range(n_blocks, n_blocks + n_new)]
        n_blocks += n_new
        _keep(sent, _Sent(whole, places if prompt.tokens is not None else known, blocks))
        accesses.append(_Access(blocks, hits, prompt.scored))
        total += tokens if prompt.scored else 0
    ideal = sum(access.hits for access in accesses if access.scored)
    return Ideal(total, ideal * block_size, _least_blocks(accesses, ideal, n_blocks) * block_size)


def _longest_shared(sent: Sequence[_Sent], text: str) -> tuple[int, _Sent | None]:
    """Return how many characters the text shares with the earlier prompt that shares most: in the order of texts a neighbour."""
    at = bisect_left(sent, text, key=lambda each: each.text)
    near = [(_shared(each.text, text), each) for each in sent[max(0, at - 1) : at + 1]]
    return max(near, key=lambda found: found[0], default=(0, None))


def _shared(one: str, other: str) -> int:
    """Return with how many equal characters both texts begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _keep(sent: list[_Sent], made: _Sent) -> None:
    """Add a prompt in the order of texts. Of equal texts the latest is found first."""
    sent.insert(bisect_left(sent, made.text, key=lambda each: each.text), made)


def _tokens_at(place: int, anchors: Sequence[tuple[int, float]]) -> float:
    """Return the tokens before a place in a text: linear between the places on both sides whose tokens are known."""
    left, right = (0, 0.0), anchors[-1]
    for anchor in sorted(anchors):
        if anchor[0] <= place:
            left = anchor
        else:
            right = anchor
            break
    if right[0] <= left[0]:
        return left[1]
    return left[1] + (place - left[0]) * (right[1] - left[1]) / (right[0] - left[0])


def _least_blocks(accesses: Sequence[_Access], ideal: int, most: int) -> int:
    """Return the least size with which all ideal hits are had. More blocks never have fewer hits, because the larger cache holds all of the smaller."""
    return bisect_left(range(most + 1), ideal, key=lambda size: _hits(accesses, size)) if ideal else 0


def _hits(accesses: Sequence[_Access], size: int) -> int:
    """Return the hits, in blocks, of a cache of this size. A prompt's last blocks are evicted before its first, as vLLM does it."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for access in accesses:
        lead = next((number for number, block in enumerate(access.blocks[: access.hits]) if block not in cache), access.hits)
        found += lead if access.scored else 0
        for block in reversed(access.blocks):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > size:
            cache.popitem(last=False)
    return found
