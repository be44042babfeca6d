"""Conversations of the demonstration: only what is written as it is spoken."""

from __future__ import annotations

from typing import Any

import pytest

from tune_gpu.workload.demonstration.dialogues import LEAST_TURNS, Exchange, choose

WORDS = frozenset(["hello", "there", "how", "are", "you", "i", "am", "fine", "and", "it", "rains", "today", "what", "do", "like", "to", "read", "ha"])
ASKED = ["Hello there.", "How are you?", "What do you like to read?", "I like it."]


def conversation(texts: list[str]) -> dict[str, Any]:
    return {"messages": [[{"text": text, "sender": "ab"[at % 2], "timestamp": ""}] for at, text in enumerate(texts)]}


def between(asked: list[str], answer: str = "ok") -> list[str]:
    return [text for says in asked for text in (says, answer)]


def test_a_conversation_of_whole_utterances_is_taken_with_its_answers() -> None:
    (found,) = choose({"1234567890": conversation(between(ASKED, "So it is."))}, WORDS, 5)
    assert found.exchanges == tuple(Exchange(says, "So it is.") for says in ASKED)
    assert found.name == "00-12345678"


def test_messages_of_one_sender_that_follow_one_another_are_one_turn() -> None:
    texts = between(ASKED)
    data = {"x": {"messages": [[{"text": part, "sender": "ab"[at % 2]} for part in text.split()] for at, text in enumerate(texts)]}}
    assert [exchange.says for exchange in choose(data, WORDS, 1)[0].exchanges] == ASKED


@pytest.mark.parametrize("unspoken", ["Hello thier.", "hello there.", "Hello there", "Hello", "Hello 2 there.", "Ha how are you?", ("Hello " * 30).strip() + "."])
def test_an_utterance_that_is_no_exact_transcript_ends_the_stretch(unspoken: str) -> None:
    assert choose({"x": conversation(between([*ASKED[:2], unspoken, *ASKED[2:]]))}, WORDS, 1) == []


def test_a_conversation_can_be_taken_from_its_middle() -> None:
    (found,) = choose({"x": conversation(["u kno", *between(ASKED)])}, WORDS, 1)
    assert [exchange.says for exchange in found.exchanges] == ASKED


def test_no_more_are_taken_than_wanted_and_short_ones_are_left_out() -> None:
    data = {"short": conversation(between(ASKED[: LEAST_TURNS - 1]))} | {str(number): conversation(between(ASKED)) for number in range(5)}
    assert [found.name for found in choose(data, WORDS, 2)] == ["00-0", "01-1"]
