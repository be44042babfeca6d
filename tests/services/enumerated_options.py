"""Every option of the installed `vllm serve`, each with values of its kind, as it is measured and as it is deployed.

Run as `python -m tests.services.enumerated_options OUT.json`; imports vLLM.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_flags import judge, queries_of, space_of
from tests.namespaces import installed_options, read_all
from tests.services.installed_defaults import installed_defaults
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.space_check import check_space

SETTINGS: dict[str, list[Any]] = {
    "block_size": [16],
    "dtype": ["auto", "float16", "bfloat16"],
    "enable_chunked_prefill": [None, True, False],
    "enable_prefix_caching": [None, True, False],
    "enforce_eager": [True, False],
    "gpu_memory_utilization": [0.3, 1],
    "kv_cache_dtype": ["auto", "fp8"],
    "load_format": ["auto", "dummy"],
    "max_model_len": [None, 64, 32000, "auto"],
    "max_num_batched_tokens": [None, 2048],
    "max_num_seqs": [None, 4],
    "quantization": [None, "awq"],
    "tensor_parallel_size": [1, 2],
}
"""The settings that are flags, with values to try."""
BELOW = {
    "speculative_config.method": "ngram", "speculative-config.num_speculative_tokens": 5, "speculative_config.disable_padded_drafter_batch": True,
    "compilation_config.pass_config.fuse_norm_quant": False, "compilation_config.cudagraph_capture_sizes": [1, 2], "compilation-config.custom_ops+": "none",
    "hf_overrides.name": "5", "hf_overrides.text": "-O3 --host=0.0.0.0", "additional_config.a.b": {"c": [None, True]}, "additional_config.n": -0.5,
}  # fmt: skip
"""Options below dots."""


CASES: list[dict[str, Any]] = [
    {"name": "off", "settings": {"enable_prefix_caching": False}, "key": "enable_prefix_caching", "want": False},
    {"name": "dotted", "extra_args": {"speculative_config.method": "ngram", "speculative-config.n": 5, "speculative_config.on": True,
                                      "no-async-scheduling": True, "enable-log-requests": True},
     "key": "speculative_config", "want": {"method": "ngram", "n": 5, "on": True}},
    {"name": "after dotted", "extra_args": {"speculative_config.on": False, "seed": 7}, "key": "seed", "want": 7},
    {"name": "no- form", "extra_args": {"no-enable-log-deltas": True}, "key": "enable_log_deltas", "want": False},
    {"name": "no no- form", "extra_args": {"headless": False}, "key": "headless", "want": False},
    {"name": "auto", "settings": {"max_model_len": "auto"}, "key": "max_model_len", "want": -1},
    {"name": "-1", "settings": {"max_model_len": -1}, "key": "max_model_len", "want": -1},
    {"name": "32k", "settings": {"max_model_len": "32k"}, "key": "max_model_len", "want": 32000},
    {"name": "8K", "settings": {"max_num_batched_tokens": "8K"}, "key": "max_num_batched_tokens", "want": 8192},
    {"name": "one HTTP server", "extra_args": {"data_parallel_size": 2}, "key": "api_server_count", "want": 1},
    {"name": "beside the knob", "settings": {"enable_prefix_caching": True}, "extra_args": {"no-enable-prefix-caching": True},
     "key": "enable_prefix_caching", "want": "refused, or equal to the knob"},
    {"name": "no such flag", "extra_args": {"no_such_flag": 1}, "key": "seed", "want": "refused"},
    {"name": "wrong kind", "extra_args": {"seed": "many"}, "key": "seed", "want": "refused"},
]  # fmt: skip
"""As `tests.benchmarks.serve_flags` takes them."""


def entries(options: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Names and values for `extra_args`: full names, `no-` forms, other names, and beginnings."""
    texts = ["text", "1k", "-1", "-0.5", "--host=0.0.0.0", ""]
    for number, (name, option) in enumerate(options.items()):
        spelled = name if number % 2 else name.replace("-", "_")
        if option["kind"] in ("switch", "on"):
            yield from ((spelled, value) for value in (True, False, "yes"))
            yield from ((f"no-{spelled}", value) for value in (True, False))
        else:
            lists: list[Any] = [["a", "b"], [1, 2], [{"name": "a", "path": "b"}], ["--host", "0.0.0.0"]]
            text = texts[number % len(texts)]
            yield from ((spelled, value) for value in (*option["choices"][:1], 3, 0.5, text, {}, *lists, True))
        if option["kind"] in ("switch", "on") or "config" in name:
            yield f"{spelled}.a", 1
        for other in option["also"]:
            yield from ((other.lstrip("-"), value) for value in (3, True))
        yield name[:-1], option["choices"][0] if option["choices"] else True
    yield from BELOW.items()


def rows() -> Iterator[dict[str, Any]]:
    """Each entry and each setting with what it was refused for, or what it means in each way."""
    base = space_of({})
    tried: list[tuple[dict[str, Any], ExperimentConfig | str]] = []
    for name, value in entries(installed_options()):
        tried.append(({"name": name, "value": value}, _space(base, {}, {name: value})))
    for setting, values in SETTINGS.items():
        tried += [({"setting": setting, "value": value}, _space(base, {setting: value}, {})) for value in values]
    queries = [queries_of(config) for _, config in tried if not isinstance(config, str)]
    measured = read_all([each[0] for each in queries])
    accepted = [each for each, found in zip(queries, measured, strict=True) if not isinstance(found, str)]  # `plan` asks the same parser
    means, deployed = iter(measured), iter(read_all([query for each in accepted for query in each[1:]]))
    for given, config in tried:
        if isinstance(config, str):
            yield given | {"refused": config}
        elif isinstance(found := next(means), str):
            yield given | {"refused": f"vLLM: {found}"}
        else:
            yield given | {"measured": found, "serve": next(deployed), "module": next(deployed)}


def _space(base: ExperimentConfig, settings: dict[str, Any], extra: dict[str, Any]) -> ExperimentConfig | str:
    config = copy.deepcopy(base)
    config.services.vllm.extra_args = extra
    for name, value in settings.items():
        setattr(config.services.vllm, name, value)
    try:
        check_space(config)
    except UserError as error:
        return str(error)
    return config


def differences(row: dict[str, Any]) -> dict[str, Any]:
    """What the deployed file means otherwise than the measured command line."""
    of_the_place = {"host", "port", "served_model_name", "config"}
    if "measured" not in row:
        return {}
    found = {}
    for way in ("serve", "module"):
        if isinstance(row[way], str):
            found[way] = row[way]
            continue
        names = (row["measured"].keys() | row[way].keys()) - of_the_place
        found |= {f"{way} {name}": row[way].get(name) for name in names if row[way].get(name) != row["measured"].get(name)}
    return found


def main(out: str) -> None:
    """Write the installed options and their defaults, and a line for each entry: its meaning without what vLLM's defaults are."""
    plain = read_all(queries_of(space_of({}))[:1])[0]
    assert isinstance(plain, dict)
    found = []
    for row in rows():
        entry = {name: row[name] for name in ("name", "setting", "value", "refused") if name in row} | {"differences": differences(row)}
        found.append(entry | {"changed": {name: value for name, value in row.get("measured", {}).items() if value != plain.get(name) and name != "served_model_name"}})
    Path(out).write_text(
        json.dumps({"options": installed_options(), "defaults": installed_defaults(), "rows": found, "cases": judge(CASES, read_all)})
    )


if __name__ == "__main__":
    main(sys.argv[1])
