"""The ideal of a plan's prompts: what a cache without an end would have, checked against caches that are simulated block by block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.workload.sessions.ideal import Ideal, Prompt, ideal_of


def lettered(text: str, *, scored: bool = True, answer: str = "") -> Prompt:
    """A prompt of a model whose tokens are letters."""
    return Prompt(text, len(text), answer, len(answer), scored=scored)


def simulated(prompts: Sequence[Prompt], block: int, size: int | None) -> int:
    """Tokens that a cache of so many blocks finds, by the texts of the blocks themselves. It knows nothing of the module under test."""
    cache: OrderedDict[str, None] = OrderedDict()
    found = 0
    for prompt in prompts:
        whole = prompt.text + prompt.answer
        starts = [whole[: at + block] for at in range(0, len(whole) - block + 1, block)]
        hits = 0
        while hits < len(starts) and starts[hits] in cache and (hits + 1) * block <= len(prompt.text) - 1:
            hits += 1
        found += hits * block if prompt.scored else 0
        for start in reversed(starts):
            cache[start] = None
            cache.move_to_end(start)
        while size is not None and len(cache) > size:
            cache.popitem(last=False)
    return found


TEXTS = st.lists(st.text("ab", max_size=4).map(lambda tail: "ab" * 3 + tail) | st.text("ab", max_size=12), min_size=1, max_size=8)
PROMPTS = st.builds(
    lambda texts, scored, answers: [lettered(text, scored=yes, answer=answer) for text, yes, answer in zip(texts, scored, answers, strict=False)],
    TEXTS, st.lists(st.booleans(), min_size=8, max_size=8), st.lists(st.text("ab", max_size=3), min_size=8, max_size=8),
)  # fmt: skip


@given(PROMPTS, st.integers(1, 4), st.integers(0, 30))
def test_no_cache_finds_more_than_the_ideal_and_an_endless_one_as_much(prompts: list[Prompt], block: int, size: int) -> None:
    found = ideal_of(prompts, block)
    if found is None:
        assert not any(prompt.text for prompt in prompts)
        return
    assert found.hit_tokens == simulated(prompts, block, None)
    assert found.hit_tokens >= simulated(prompts, block, size)
    assert found.prompt_tokens == sum(len(prompt.text) for prompt in prompts if prompt.scored)


@given(PROMPTS, st.integers(1, 4))
def test_the_working_set_is_the_least_cache_that_has_all_ideal_hits(prompts: list[Prompt], block: int) -> None:
    found = ideal_of(prompts, block)
    if found is None or not found.hit_tokens:
        return
    blocks = found.working_set_tokens // block
    assert simulated(prompts, block, blocks) == found.hit_tokens
    assert simulated(prompts, block, blocks - 1) < found.hit_tokens


SYSTEM = "s" * 384
CALLERS = ["x" * 128, "y" * 128]


def test_callers_share_the_system_prompt_and_each_finds_its_own_history() -> None:
    filled = [lettered(SYSTEM, scored=False), *(lettered(SYSTEM + own, scored=False) for own in CALLERS)]
    turns = [lettered(SYSTEM + own + "q" * 32) for own in CALLERS]
    later = [lettered(SYSTEM + own + "q" * 32 + "a" * 64 + "r" * 32) for own in CALLERS]
    found = ideal_of([*filled, *turns, *later], 32)
    assert found == Ideal(2 * 544 + 2 * 640, 2 * 512 + 2 * 544, working_set_tokens=384 + 2 * (128 + 32) + 96)


def test_a_history_of_own_answers_is_found_with_them() -> None:
    first, second = lettered("p" * 64, answer="a" * 64), lettered("p" * 64 + "a" * 64 + "q" * 64)
    assert ideal_of([first, second], 32) == Ideal(256, 128, 128)


def test_places_between_counted_prompts_are_found_in_their_tokens() -> None:
    """The server counts 2 tokens a letter of the system prompt and half a one of the rest: an average would misplace where the prompts part."""
    filled, turn = Prompt("s" * 100, 200, scored=False), Prompt("s" * 100 + "q" * 100, 250)
    assert ideal_of([filled, turn], 10) == Ideal(250, 200, 200)


def test_a_prompt_that_was_never_counted_is_scaled_by_the_others() -> None:
    assert ideal_of([Prompt("p" * 100, 50), Prompt("p" * 100 + "q" * 100)], 10) == Ideal(50 + 100, 50, 50)
    assert ideal_of([Prompt("p" * 100)], 10) is None
    assert ideal_of([], 10) is None
