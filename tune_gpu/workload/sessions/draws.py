"""Random numbers that are functions of their key: no draw shifts another, and a million are made at once.

A stream of random numbers is shared by all that draw from it, so one more turn would change every later draw. Here each number is the hash of
(seed, window, session, turn, purpose). The hash is a chain of SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

Keys = int | np.ndarray


class Purpose(IntEnum):
    """What a number is drawn for. The numbers are part of every plan: never change one, and give a new purpose a new number."""

    GAP = 1
    """Between the beginnings of two sessions."""
    STRADDLE = 2
    """The gap in which a window begins, and where in it."""
    PROFILE = 3
    CONVERSATION = 4
    TURNS = 5
    WORDS = 6
    """Of a turn: which conversation goes on after the session's own has ended."""
    ANSWER_TOKENS = 7
    ANSWER = 8
    """The words of an answer."""
    THINK = 9
    TOOL = 10
    TOOL_TOKENS = 11
    TOOL_LATENCY = 12
    TOOL_TEXT = 13
    RETRIEVAL = 14
    RETRIEVAL_TOKENS = 15
    RETRIEVAL_TEXT = 16
    BARGE_IN = 17
    BARGE_IN_AT = 18
    PREEMPTIVE = 19
    PREEMPTIVE_SHARE = 20
    PROMPT = 21
    """The words of a synthetic system prompt."""
    OWN_PROMPT = 22
    CLOCK = 23
    AUXILIARY = 24
    AUXILIARY_AT = 25
    AUXILIARY_TOKENS = 26
    AUXILIARY_TEXT = 27
    ORDER = 28
    """The order of a source's conversations."""


_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def uniform(seed: Keys, window: Keys, session: Keys, turn: Keys, purpose: Keys) -> np.ndarray:
    """Return a number in (0, 1) for each key, with the shape to which the keys broadcast. Keys are whole numbers and may be negative."""
    mixed: Any = np.uint64(0)
    for key in (seed, window, session, turn, purpose):
        mixed = _mix(mixed ^ _mix(_as_uint64(key) + np.uint64(_GOLDEN)))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _as_uint64(key: Keys) -> np.ndarray:
    if isinstance(key, np.ndarray):
        return key.astype(np.int64).view(np.uint64)
    return np.array([int(key) & _MASK], dtype=np.uint64)


def _mix(z: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser of each number. An array wraps around where a scalar would warn."""
    z = np.atleast_1d(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
