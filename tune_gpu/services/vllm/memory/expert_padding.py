"""The padding of experts to the tiles of the kernel that computes them, which makes them larger on the card than in the checkpoint.

Sizes are rounded up on each card, after experts were divided (`mxfp4_round_up_hidden_size_and_intermediate_size` in
`fused_moe/oracle/mxfp4.py`, before 0.20 `quantization/mxfp4.py`). The kernel depends on the card's compute capability.
"""

from __future__ import annotations

import re

from tune_gpu.services.vllm.memory.architecture import ModelArchitecture
from tune_gpu.services.vllm.memory.arithmetic import ceil_div
from tune_gpu.services.vllm.memory.engine_rules import EngineRules
from tune_gpu.services.vllm.memory.weight_formats import WeightFormat

_CAPABILITIES = (
    (r"\bG?H(?:100|200|800|20)\b", 90), (r"\bG?B[123]00", 100), (r"\bGB10\b|RTX\s*50|RTX PRO|Blackwell|\b50[5-9]0\b", 120),
    (r"RTX\s*40|\bL4|\bL20|\b40[5-9]0\b|\bAda", 89), (r"A100|A800|A30\b|A10|RTX\s*30|RTX A\d|\bA\d0\b", 80), (r"\bT4|RTX\s*20|V100", 75),
)
_MARLIN, _TRITON, _TRTLLM, _LATER_TRTLLM = (256, 128), (256, 64), (256, 256), (256, 128)
"""Multiples of the hidden size and of a card's part of the intermediate size.

Triton's layout for Hopper rounds the hidden size as well: gpt-oss-20b and 120b take 13.47 and 64.38 GiB there (logs of 0.11).
"""
_OTHER_TILE = 128
"""Largest multiple of the intermediate size in the other kernels (`fused_moe/oracle/fp8.py` and `unquantized.py`, `flashinfer_utils.py`)."""


def capability(card: str) -> int | None:
    """Return a card's compute capability (x 10) by its name, or None for an unknown card."""
    return next((value for pattern, value in _CAPABILITIES if re.search(pattern, card, re.IGNORECASE)), None)


def padding(model: ModelArchitecture, stored: WeightFormat, rules: EngineRules, card: str, cards: int) -> tuple[float, float]:
    """Return the share by which the experts of this format grow, and its standard deviation."""
    if rules.cpu or not rules.v1:
        return 0.0, 0.0
    if not stored.name.startswith("mxfp4"):
        return 0.0, 0.5 * _growth(model, (1, _OTHER_TILE), cards)
    shares = [_growth(model, multiples, cards) for multiples in _kernels(capability(card), rules)]
    return max(shares), 0.5 * (max(shares) - min(shares)) + 0.005


def _kernels(found: int | None, rules: EngineRules) -> tuple[tuple[int, int], ...]:
    """Return the kernels that vLLM may choose, by capability and version. Return several if the choice depends on an installation that is not known."""
    trtllm = _LATER_TRTLLM if rules.version >= (0, 27) else _TRTLLM
    if found is None:
        return (_MARLIN, _TRITON)
    if found < 90:
        return (_MARLIN,)
    if found == 90:
        return (_TRITON,)
    if found == 100:
        return (trtllm,)
    return (_MARLIN, _TRITON)


def _growth(model: ModelArchitecture, multiples: tuple[int, int], cards: int) -> float:
    own = max(1, (model.moe_intermediate or model.intermediate) // cards)
    hidden, inner = (ceil_div(size, multiple) * multiple for size, multiple in zip((model.hidden, own), multiples, strict=True))
    return float(hidden * inner / (model.hidden * own) - 1)
