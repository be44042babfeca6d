"""Made-up deployments with known differences, for the statistics' tests."""

from __future__ import annotations

import numpy as np

from tune_gpu.compare.samples import Pair, Replicate, Turn


def turn(stt_ms: float, ttft_ms: float, llm_ms: float, turn_ms: float, word_errors: int = 1, words: int = 10) -> Turn:
    """Return a turn that was answered."""
    return Turn.from_dict({"stt_ms": stt_ms, "ttft_ms": ttft_ms, "llm_ms": llm_ms, "turn_ms": turn_ms, "word_errors": word_errors, "words": words})


def replicate(arm: str, number: int, clips_ms: np.ndarray, rng: np.random.Generator, *, speed: float = 1.0, luck: float = 0.05) -> Replicate:
    """A deployment under one round's clips: each deployment is a little lucky or not, and each turn again."""
    times = clips_ms * speed * np.exp(rng.normal(0.0, luck)) * np.exp(rng.normal(0.0, 0.15, len(clips_ms)))
    errors = rng.binomial(10, 0.1, len(clips_ms))
    turns = tuple(turn(float(t) * 0.6, float(t) * 0.1, float(t) * 0.3, float(t), int(e)) for t, e in zip(times, errors, strict=True))
    return Replicate(arm, number, turns, capacity=float(rng.normal(3.0, 0.4)), fitness=float(rng.normal(0.5, 0.02)), wall_s=10.0)


def rounds(seed: int, n: int, turns: int, *, speed: float = 1.0) -> list[Pair]:
    """Rounds of two arms, the first `speed` times as slow."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(n):
        clips_ms = np.exp(rng.normal(6.5, 0.5, turns))
        pairs.append(Pair(replicate("a", number, clips_ms, rng, speed=speed), replicate("b", number, clips_ms, rng)))
    return pairs
