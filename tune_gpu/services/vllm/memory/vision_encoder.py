"""The peak of an image encoder in vLLM's profiling run: as many of the largest images or videos as a batch holds.

`multimodal/encoder_budget.py`: the budget is `max_num_batched_tokens`, or one item where an item has more tokens. The encoder runs before the
language model, which then finds the encoder's output in the cache.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tune_gpu.services.vllm.memory.arithmetic import Number, maximum, minimum

_QWEN_IMAGE_TOKENS = 16384
"""Most tokens of an image in Qwen's published processors: 12845056 pixels of 28 x 28 a token, later 16777216 of 32 x 32."""
_QWEN_MOST_VIDEO_FRAMES = 14
"""`_MAX_FRAMES_PER_VIDEO` of vLLM's `qwen2_vl.py`. Two frames are one step in time."""
_PATCHES = {"qwen3": 16, "qwen2": 14}
"""Side of a patch where a config leaves it to its class, by the beginning of the type."""
MOST_ITEMS = 999
"""Items of a kind in a prompt where no flag limits them (vLLM's own default)."""
_LARGEST_TILES = 5
"""Tiles of a LLaVA-NeXT image: four, and the whole."""


@dataclass(frozen=True)
class VisionEncoder:
    """Shapes of an encoder."""

    hidden: int
    intermediate: int
    gated: bool
    patches: int
    """Patches of the largest image."""
    tokens: int
    """Tokens of the largest image in the language model."""
    pixels: int = 0
    """Numbers of one patch in the input."""
    levels: int = 1
    """Outputs for each token: one, and one for each layer whose features go into the language model as well (`deepstack_visual_indexes`)."""
    video_steps: int = 0
    """Most steps of a video at full resolution, each with the tokens of an image; 0 if a video has no more tokens than an image."""
    doubt: ClassVar[float] = 0.2
    """Standard deviation of the peak, as a share of it."""

    @classmethod
    def of(cls, vision: Mapping[str, Any] | None, outer: Mapping[str, Any]) -> VisionEncoder | None:
        """Read the shapes from a `vision_config`, or return None where they do not say how large an image may be."""
        part = vision or {}
        hidden = _size(part, "embed_dim") if part.get("mlp_ratio") else 0
        hidden = hidden or _size(part, "hidden_size") or _size(part, "embed_dim")
        kind = str(outer.get("model_type", ""))
        patch = _size(part, "patch_size") or next((size for start, size in _PATCHES.items() if kind.startswith(start)), 0)
        if not hidden or not patch:
            return None
        inner = _size(part, "intermediate_size") or int(hidden * float(part.get("mlp_ratio") or 4))
        gated = part.get("hidden_act") == "silu"
        pixels = 3 * patch * patch * (_size(part, "temporal_patch_size") or (2 if kind.startswith("qwen") else 1))
        if kind.startswith("qwen"):
            merged = (_size(part, "spatial_merge_size") or 2) ** 2
            steps = _QWEN_MOST_VIDEO_FRAMES // 2 if kind.startswith(("qwen2_vl", "qwen2_5_vl")) else 0
            return cls(hidden, inner, gated or kind.startswith("qwen2_5"), _QWEN_IMAGE_TOKENS * merged, _QWEN_IMAGE_TOKENS,
                       pixels, 1 + len(part.get("deepstack_visual_indexes") or ()), steps)
        side = _size(part, "image_size")
        if not side:
            return None
        patches = (side // patch) ** 2 * (_LARGEST_TILES if kind == "llava_next" else 1)
        return cls(hidden, inner, gated, patches, int(outer.get("mm_tokens_per_image") or patches), pixels)

    def item_tokens(self, context: Number, limits: Mapping[str, int]) -> Number:
        """Return the tokens of an item of the kind that has most: an image, or as many steps of a video as the context holds."""
        of_an_image = self.tokens * (limits.get("image", MOST_ITEMS) > 0)
        steps = minimum(context // self.tokens, self.video_steps) if limits.get("video", MOST_ITEMS) > 0 else 0 * context
        return maximum(of_an_image, steps * self.tokens)

    def peak(self, batch_tokens: Number, context: Number, width: int, limits: Mapping[str, int], hidden: int) -> Number:
        """Return the bytes of the encoder's widest moment over all items of a batch, for a language model of this hidden size."""
        tokens = self._tokens(batch_tokens, context, limits)
        return tokens * (self.patches / self.tokens * self._bytes_per_patch(width) + (self.levels - 1) * hidden * width)

    def output(self, batch_tokens: Number, context: Number, width: int, limits: Mapping[str, int], hidden: int) -> Number:
        """Return the bytes of the encoder's output, which exist beside the language model's activation."""
        return self._tokens(batch_tokens, context, limits) * self.levels * hidden * width

    def _bytes_per_patch(self, width: int) -> float:
        """Return the bytes in a block beside the pixels: input and its norm, and the feed-forward layer or the queries, keys, values and their rotations."""
        feed_forward = 2 * self.hidden + (3 if self.gated else 2) * self.intermediate
        return float(max(feed_forward, 9 * self.hidden) + self.hidden + self.pixels) * width

    def _tokens(self, batch_tokens: Number, context: Number, limits: Mapping[str, int]) -> Number:
        """Return the tokens of the items that are profiled: those of the kind with the most tokens an item (`get_modality_with_max_tokens`)."""
        of_an_item = self.item_tokens(context, limits)
        items = maximum(batch_tokens // maximum(of_an_item, 1), 1)
        return of_an_item * minimum(items, max(limits.get("image", MOST_ITEMS), limits.get("video", MOST_ITEMS)))


def limits_of(extra: Mapping[str, Any]) -> dict[str, int]:
    """Return the items of each kind that a prompt may have (`limit_mm_per_prompt`), by flags in either spelling."""
    found: dict[str, int] = {}
    for name, value in extra.items():
        head, _, kind = str(name).replace("-", "_").partition(".")
        if head != "limit_mm_per_prompt":
            continue
        value = _parsed(value)
        given = value if isinstance(value, Mapping) and not kind else {kind: value}
        counts = {str(each): count.get("count") if isinstance(count, Mapping) else count for each, count in given.items()}
        found |= {each: count for each, count in counts.items() if isinstance(count, int)}
    alone = extra.get("language_model_only") or extra.get("language-model-only")
    return {"image": 0, "video": 0, "audio": 0} if alone else found


def _parsed(value: Any) -> Any:
    """Return the value of a JSON text, or the value itself."""
    with contextlib.suppress(ValueError):
        return json.loads(value) if isinstance(value, str) else value
    return value


def _size(part: Mapping[str, Any], key: str) -> int:
    value = part.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**6 else 0
