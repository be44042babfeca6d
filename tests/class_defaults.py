"""Make `tune_gpu/services/vllm/memory/class_defaults.json` from the installed transformers: `HF_HUB_OFFLINE=1 python -m tests.class_defaults`.

The table holds what a config class adds to a `config.json`: default values, other names of the same value, and which part describes the
text model. Importing transformers takes seconds and it is not installed everywhere, so the preflight reads this table instead; a test
compares both.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from tune_gpu.common.imports import uncollected
from tune_gpu.services.vllm.memory import config_classes

PATH = Path(config_classes.__file__).with_name("class_defaults.json")
_TRIED = (3, 12, 25, 62)
"""Numbers of layers from which the pattern of the layer types is told."""
_LONGEST_PATTERN = 12
_GENERATING = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SEQ_TO_SEQ_CAUSAL_LM")
_FLAT = {"num_hidden_layers": 3, "vocab_size": 1234}


def configuration_mapping() -> Any:
    """Every `model_type` that transformers knows, and its class."""
    import huggingface_hub.constants

    # Two classes ask the hub, and wait for it in vain. The variable is read when the package is imported, which another test may have done.
    os.environ["HF_HUB_OFFLINE"], huggingface_hub.constants.HF_HUB_OFFLINE = "1", True
    logging.disable(logging.WARNING)  # default values contradict one another in many classes
    warnings.simplefilter("ignore")
    with uncollected():
        from transformers import PreTrainedConfig
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        list(CONFIG_MAPPING.values())  # imports the module of each class
    # Where a class refuses a value, the error holds the config's repr, which makes the defaults anew: five sixths of the table's time.
    PreTrainedConfig.__repr__ = object.__repr__
    return CONFIG_MAPPING


def made(kind: type, **given: Any) -> Any | None:
    """An instance; null where the class takes no such values, or cannot be made without a download or another library."""
    with contextlib.suppress(Exception):
        return kind(**given)
    return None


def table() -> dict[str, Any]:
    """The whole file."""
    import transformers

    mapping = configuration_mapping()
    models = _model_types(Path(transformers.__file__).parent / "models" / "auto" / "modeling_auto.py")
    generating = set().union(*(models[f"MODEL_FOR_{kind}_MAPPING_NAMES"] for kind in _GENERATING)) - models["MODEL_FOR_MASKED_LM_MAPPING_NAMES"]
    types: dict[str, str] = {}
    classes: dict[str, Any] = {}
    waiting: list[type] = []
    for model_type in sorted(mapping.keys()):
        kind = mapping[model_type]
        if made(kind) is not None:
            types[model_type] = kind.__name__
            waiting.append(kind)
    while waiting:
        kind = waiting.pop()
        if kind.__name__ in classes or (instance := made(kind)) is None:
            continue
        classes[kind.__name__], parts = _described(kind, instance, generating)
        waiting += parts
    return {"transformers": transformers.__version__, "types": types, "classes": dict(sorted(classes.items()))}


def _model_types(source: Path) -> dict[str, set[str]]:
    """The model types in each mapping of this module, which is read and not imported: it imports torch's generation, too."""
    found = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call) and node.value.args:
            pairs = node.value.args[0]
            if isinstance(pairs, ast.List):
                found[node.targets[0].id] = {ast.literal_eval(pair.elts[0]) for pair in pairs.elts if isinstance(pair, ast.Tuple)}
    return found


def _described(kind: type, instance: Any, generating: set[str]) -> tuple[dict[str, Any], list[type]]:
    from transformers import AutoConfig, PreTrainedConfig

    raw, names = _written_defaults(kind), dict(getattr(kind, "attribute_map", {}))
    facts: dict[str, Any] = {}
    derived: list[str] = []
    own: list[str] = []
    for fact in config_classes.FACTS:
        value, written = _plain(_value(instance, fact)), names.get(fact, fact)
        default = raw.get(written, raw.get(fact))
        if value is None and isinstance(default, int):  # the class clears it unless another value asks for it
            value = default
        if value is None:
            continue
        if fact == "attn_config" or (default is not None and fact != "layer_types") or _is_constant(kind, written):
            facts[fact] = value
        elif fact in config_classes.SHAPES and not _as_vllm_derives(instance, fact):
            own.append(fact)
        else:
            derived.append(fact)
    found: dict[str, Any] = {
        "facts": facts, "derived": derived, "own": own, "names": {fact: names[fact] for fact in config_classes.FACTS if fact in names},
    }  # fmt: skip
    if getattr(instance, "is_heterogeneous", False):
        facts["per_layer_config"] = True
    if "layer_types" in derived:
        found["layers"] = _layer_rule(kind)
    parts = {key: getattr(instance, key, None) for key in getattr(kind, "sub_configs", {})}
    known = {key: type(part) for key, part in parts.items() if isinstance(part, PreTrainedConfig)}
    wanted = {key: part for key, part in known.items() if key in ("vision_config", "audio_config") or key == _text_key(instance, parts)}
    found["parts"] = {key: part.__name__ for key, part in wanted.items()}
    found["by_type"] = [key for key in wanted if kind.sub_configs[key] is AutoConfig]  # type: ignore[attr-defined]
    found["absent"] = {key: special for key, part in wanted.items() if (special := _special(instance, key, part))}
    found["text"] = _text_key(instance, parts)
    if found["text"]:
        flat = made(kind, **_FLAT)
        found["flat"] = flat is not None and all(_value(flat.get_text_config(), name) == value for name, value in _FLAT.items())
    found["generates"] = getattr(kind, "model_type", "") in generating
    return {key: value for key, value in found.items() if value}, list(wanted.values())


def _as_vllm_derives(instance: Any, fact: str) -> bool:
    heads, hidden = _value(instance, "num_attention_heads"), _value(instance, "hidden_size")
    if fact == "num_key_value_heads":
        return bool(_value(instance, fact) == heads)
    return bool(fact == "head_dim" and heads and hidden and _value(instance, fact) == hidden // heads)


def _special(instance: Any, key: str, usual: type) -> dict[str, Any]:
    """What this class gives to a part that is not in the config, where the part's own class has other defaults."""
    part, plain = getattr(instance, key), made(usual)
    values = {fact: _plain(_value(part, fact)) for fact in config_classes.FACTS if fact != "layer_types"}
    other = {fact: value for fact, value in values.items() if value != _plain(_value(plain, fact))}
    return {fact: value for fact, value in values.items() if fact in other or fact in config_classes.SHAPES} if other else {}


def _text_key(instance: Any, parts: dict[str, Any]) -> str | None:
    """The part that is, or holds, what `get_text_config` answers."""
    text = None
    with contextlib.suppress(Exception):
        text = instance.get_text_config()
    if text is None or text is instance:
        return None
    for key, part in parts.items():
        if part is not None and (part is text or _holds(part, text)):
            return key
    return None


def _holds(part: Any, text: Any) -> bool:
    with contextlib.suppress(Exception):
        return part.get_text_config() is text
    return False


def _written_defaults(kind: type) -> dict[str, Any]:
    """As the class says them, before it derives one from another."""
    if "__init__" in kind.__dict__ and not dataclasses.is_dataclass(kind):
        return {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    return {each.name: each.default for each in dataclasses.fields(kind)}


def _layer_rule(kind: type) -> Any:
    """A pattern that repeats; `max_window_layers` where the layers from there on have the window; null where neither explains them."""
    seen = {}
    for layers in _TRIED:
        instance = made(kind, num_hidden_layers=layers)
        types = getattr(instance, "layer_types", None) if instance is not None else None
        if types and len(types) == layers:
            seen[layers] = list(types)
    if len(seen) < 3:
        return None
    longest = seen[max(seen)]
    for length in range(1, _LONGEST_PATTERN + 1):
        pattern = longest[:length]
        if all(types == [pattern[index % length] for index in range(layers)] for layers, types in seen.items()):
            if length == 1 and _window_from(kind):
                return "max_window_layers"
            return pattern
        last = longest[-1]
        if all(types == [*(pattern[index % length] for index in range(layers - 1)), last] for layers, types in seen.items()):
            return {"pattern": pattern, "last": last}
    return None


def _window_from(kind: type) -> bool:
    instance = made(kind, num_hidden_layers=8, use_sliding_window=True, sliding_window=16, max_window_layers=5)
    return instance is not None and list(instance.layer_types) == ["full_attention"] * 5 + ["sliding_attention"] * 3


def _is_constant(kind: type, name: str) -> bool:
    """Whether an attribute of the class, and no property, gives the value."""
    found = inspect.getattr_static(kind, name, None)
    return found is not None and not isinstance(found, property)


def _value(instance: Any, fact: str) -> Any:
    """An attribute; null for none, and for one that differs layer by layer."""
    with contextlib.suppress(Exception):
        return getattr(instance, fact)
    return None


def _plain(value: Any) -> Any:
    """Numbers, words and lists of them; null for the rest."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = list(value)
        return items if all(isinstance(item, (bool, int, float, str)) for item in items) else None
    if hasattr(value, "to_dict"):
        return {key: item for key, item in value.to_dict().items() if key in ("kv_n_heads", "attn_type")} or None
    return None


def as_text(content: dict[str, Any]) -> str:
    """One class a line."""
    classes = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in content["classes"].items())
    head = f'"transformers": {json.dumps(content["transformers"])},\n"types": {json.dumps(content["types"])}'
    return f'{{\n{head},\n"classes": {{\n{classes}\n}}\n}}\n'


if __name__ == "__main__":
    PATH.write_text(as_text(table()), encoding="utf-8")
