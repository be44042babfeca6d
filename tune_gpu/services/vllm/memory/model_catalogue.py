"""Shapes of well-known models, to complete a description that leaves some out (a table of logs without the vocabulary, for example)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FAMILIES = (  # vocabulary of a family of which only the name is known
    (r"qwen|qwq|ui-tars", 151936), (r"llama-?2|vicuna|codellama|yi-|tinyllama", 32000), (r"llama|hermes-3|nemotron", 128256),
    (r"mixtral|mistral-?7b|zephyr|mistral7", 32000), (r"mistral-(nemo|small)|ministral|devstral|magistral|pixtral", 131072), (r"gemma-?3|gemma-?4", 262144),
    (r"gemma", 256000), (r"phi-?4", 100352), (r"phi-?3", 32064), (r"deepseek|kimi", 129280), (r"gpt-oss", 201088), (r"glm", 151552), (r"opt-", 50272),
    (r"exaone", 102400), (r"granite", 49155), (r"internlm|internvl", 92553), (r"falcon", 65024), (r"solar", 32000), (r"command|aya|cohere", 256000),
)


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Return the table of the package: name -> the facts of its config.json (`known_models.json`)."""
    return dict(json.loads((Path(__file__).with_name("known_models.json")).read_text(encoding="utf-8")))


def known_name(name: str) -> str | None:
    """Return the name in the table of the model that `known_model` finds, or None."""
    words = _words(name)
    found = [key for key in catalogue() if _words(key) <= words or _plain(key) in _plain(name)]
    found = [key for key in found if (_words(key) & _APART) == (words & _APART)]
    return max(found, key=lambda key: (_sized(key), len(_words(key)), len(key))) if found else None


def known_model(name: str) -> dict[str, Any] | None:
    """Return the model of the table whose words all occur in a name (`org/Qwen2.5-Coder-7B-Instruct` -> `Qwen2.5-7B`), the one with the
    most words.

    Return None if there is none, or if the name mentions a part that the table's model does not have (a vision tower, for example).
    """
    found = known_name(name)
    return None if found is None else dict(catalogue()[found])


def fill_from_catalogue(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Complete the facts from a known model of the same shape (layers, hidden size, KV heads). A given fact is never replaced."""
    given = {key: value for key, value in facts.items() if value is not None}
    complete = given.get("vocab_size") and (given.get("intermediate_size") or given.get("ffn_dim") or given.get("moe_intermediate_size"))
    if complete and given.get("max_position_embeddings"):
        return given
    if (entry := _of_this_shape(given, name)) is not None:
        # A given number of parameters stays; the rest is completed.
        return {**entry, **given} if not complete else {"max_position_embeddings": entry["max_position_embeddings"], **given}
    for pattern, vocab in _FAMILIES:
        if re.search(pattern, name.lower()) and "vocab_size" not in given:
            return {**given, "vocab_size": vocab, "_guessed": ["vocab"]}
    return given


def _of_this_shape(given: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    size, words = _number(given.get("params_b")), _words(name)
    same = {key: entry for key, entry in catalogue().items() if all(
        given.get(fact) == entry.get(fact) for fact in ("num_hidden_layers", "hidden_size", "num_key_value_heads")
    ) and (not size or abs(entry["params_b"] / size - 1) < 0.25)}
    if not same:
        return None
    named = [key for key in same if _words(key) <= words or _plain(key) in _plain(name)]
    return same[max(named, key=len) if named else min(same, key=lambda key: abs(same[key]["params_b"] - (size or 0)))]


_APART = {"vl", "vision", "omni", "audio", "next", "embedding", "reranker", "multimodal", "mini", "nano", "tiny", "small", "medium", "large", "moe", "air",
          "flash", "lite"}  # fmt: skip
"""Words that distinguish a model from the one of the same name without them."""


def _words(name: str) -> set[str]:
    """Return the words of a name: `Qwen2.5-7B` -> qwen, 2.5, 7b."""
    return set(re.findall(r"\d+(?:\.\d+)?[a-z]*|[a-z]+", name.lower()))


def _sized(name: str) -> bool:
    return re.search(r"\d[bB]\b", name) is not None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else 0.0


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
