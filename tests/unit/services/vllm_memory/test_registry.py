"""Every model type and architecture of the installed vLLM is read from a config, or is not modelled for a stated reason. None ends in an error.

The configs are published ones where a logged start has them (`tests/data/vllm_memory`), else the defaults of transformers' and vLLM's classes.
"""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from tests import class_defaults
from tune_gpu.services.vllm.memory.architecture import from_config
from tune_gpu.services.vllm.memory.config_classes import class_of

vllm = pytest.importorskip("vllm")
NEED_ANOTHER_MODEL = {"eagle", "k3_dspark"}
"""Draft models, whose config classes make nothing without the config of the model that they draft for."""


def source_of(*parts: str) -> ast.Module:
    return ast.parse(Path(vllm.__file__).parent.joinpath(*parts).read_text(encoding="utf-8"))


@functools.cache
def architectures() -> set[str]:
    """The keys of the registry's tables."""
    found = set()
    for node in ast.walk(source_of("model_executor", "models", "registry.py")):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Dict):
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id.endswith("_MODELS") and "PREVIOUSLY" not in target.id:
            found |= {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
    return found


@functools.cache
def types_by_architecture() -> dict[str, str]:
    """The model type of an architecture, by transformers' own tables of model classes."""
    import transformers

    module = ast.parse((Path(transformers.__file__).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8"))
    pairs = [ast.literal_eval(each) for each in ast.walk(module) if isinstance(each, ast.Tuple) and all(isinstance(part, ast.Constant) for part in each.elts)]
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and isinstance(pair[1], str)}


@functools.cache
def published() -> dict[str, dict[str, Any]]:
    """The configs of logged models that name their type, some of them in part."""
    folder = Path(__file__).parents[3] / "data" / "vllm_memory"
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*archs.json"))]
    return {config["model_type"]: config for table in tables for config in table.values() if "model_type" in config}


def test_every_architecture_of_the_registry_is_read_or_not_modelled() -> None:
    read, typed, as_published = 0, 0, 0
    for architecture in sorted(architectures()):
        model_type = types_by_architecture().get(architecture)
        known = published().get(model_type or "", {"model_type": model_type} if class_of(model_type) else {})
        config: dict[str, Any] = {**known, "architectures": [architecture]}
        model = from_config(config, architecture)
        typed += "model_type" in config
        as_published += len(known) > 1
        read += model.refusal is None
        if model.refusal is None:
            assert model.params > 0, architecture
        else:
            assert len(model.refusal) > 20, architecture
            assert "is not understood" not in model.refusal, architecture
    assert len(architectures()) > 350
    assert typed > 130
    assert as_published >= 12
    assert read > 80


def test_every_config_class_of_vllm_is_read_or_not_modelled() -> None:
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    class_defaults.configuration_mapping()  # silences the warnings of contradicting defaults
    unmade, read = set(), 0
    for model_type in list(_CONFIG_REGISTRY):
        instance = class_defaults.made(_CONFIG_REGISTRY[model_type])
        if instance is None:
            unmade.add(model_type)
            continue
        config = json.loads(json.dumps(instance.to_dict(), default=str))
        model = from_config({**config, "model_type": config.get("model_type") or model_type}, model_type)
        read += model.refusal is None
        assert model.refusal is None or len(model.refusal) > 20, model_type
    assert unmade <= NEED_ANOTHER_MODEL
    assert read >= 18


@pytest.mark.parametrize("model_type", ["deepseek_v32", "deepseek_v4", "glm_moe_dsa", "minimax_m3_vl_text"])
def test_sparse_attention_is_not_taken_for_plain(model_type: str) -> None:
    facts = {"model_type": model_type, "num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1000}
    assert "with an indexer: the bytes of a token in its caches depend on kernel and version" in (from_config(facts).refusal or "")
    assert "indexer" in (from_config({**facts, "model_type": "deepseek_v3", "kv_lora_rank": 512, "index_topk": 2048}).refusal or "")
