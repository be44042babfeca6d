"""Shapes of well-known models, to complete a description that leaves some out (a table of logs, say, without the vocabulary)."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FAMILIES = (  # vocabulary of a family, where only the name is known
    (r"qwen|qwq|ui-tars", 151936), (r"llama-?2|vicuna|codellama|yi-|tinyllama", 32000), (r"llama|hermes-3|nemotron", 128256),
    (r"mixtral|mistral-?7b|zephyr|mistral7", 32000), (r"mistral-(nemo|small)|ministral|devstral|magistral|pixtral", 131072), (r"gemma-?3|gemma-?4", 262144),
    (r"gemma", 256000), (r"phi-?4", 100352), (r"phi-?3", 32064), (r"deepseek|kimi", 129280), (r"gpt-oss", 201088), (r"glm", 151552), (r"opt-", 50272),
    (r"exaone", 102400), (r"granite", 49155), (r"internlm|internvl", 92553), (r"falcon", 65024), (r"solar", 32000), (r"command|aya|cohere", 256000),
)


@functools.cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The table that ships with the program: name -> the facts of its config.json (`known_models.json`)."""
    return dict(json.loads((Path(__file__).with_name("known_models.json")).read_text()))


def known_model(name: str) -> dict[str, Any] | None:
    """A model of the table, by a name that contains its name (`org/Qwen2.5-7B-Instruct` -> `Qwen2.5-7B`), the longest that does."""
    found = [key for key in catalogue() if _plain(key) in _plain(name)]
    return dict(catalogue()[max(found, key=len)]) if found else None


def fill_from_catalogue(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The facts, completed from a known model of the same shape (layers, hidden size, KV heads); what is given is never replaced."""
    given = {key: value for key, value in facts.items() if value is not None}
    if given.get("vocab_size") and (given.get("intermediate_size") or given.get("ffn_dim")):
        return given
    size = given.get("params_b")
    same = {key: entry for key, entry in catalogue().items() if all(
        given.get(fact) == entry.get(fact) for fact in ("num_hidden_layers", "hidden_size", "num_key_value_heads")
    ) and (not size or abs(entry["params_b"] / size - 1) < 0.25)}
    if same:
        named = [key for key in same if _plain(key) in _plain(name)]
        entry = same[max(named, key=len) if named else min(same, key=lambda key: abs(same[key]["params_b"] - (size or 0)))]
        # Where the number of parameters is given it stands; the rest is completed.
        return {**entry, **given}
    for pattern, vocab in _FAMILIES:
        if re.search(pattern, name.lower()) and "vocab_size" not in given:
            return {**given, "vocab_size": vocab, "_guessed": ["vocab"]}
    return given


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
