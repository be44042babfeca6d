"""What command lines and files of flags mean to vLLM's own parsers: one process that imports vLLM for all of them.

Run as `python -m tests.namespaces OUT.json < IN.json`; IN is a list of queries, each `{"argv": […]}` (the API server's module), or
`{"file": "the YAML", "command": "serve" or "module"}`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

CLASS = "(class)"
"""Key under which a namespace's object has its class's name."""
_SERVE_ALONE = ("model_tag", "subparser", "dispatch_function")


def ask(queries: Sequence[dict[str, Any]]) -> list[Any]:
    """For each query its namespace, or why it is refused (a text), by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        env = os.environ | {"VLLM_LOGGING_LEVEL": "CRITICAL"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.namespaces", str(out)], input=json.dumps(list(queries)), text=True, env=env, timeout=280, check=False,
            capture_output=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return list(json.loads(out.read_text()))


def read_all(queries: Sequence[dict[str, Any]]) -> list[dict[str, Any] | str]:
    """For each query its namespace, or why it is refused. Imports vLLM."""
    from tune_gpu.services.vllm.serve_parser import module_parser, serve_parser

    module, serve = module_parser(), serve_parser()
    with tempfile.TemporaryDirectory() as folder:
        path, found = Path(folder) / "vllm.yaml", []
        for query in queries:
            if "file" in query:
                path.write_text(query["file"])
            found.append(_read(query, str(path), module, serve))
    return found


def _read(query: dict[str, Any], path: str, module: Any, serve: Any) -> dict[str, Any] | str:
    from tune_gpu.services.vllm.serve_parser import parse

    if "argv" in query:
        parsed = parse(module, query["argv"])
    else:
        parsed = parse(serve, ["serve", "--config", path]) if query["command"] == "serve" else parse(module, ["--config", path])
    if isinstance(parsed, str):
        return parsed
    if getattr(parsed, "model_tag", None):  # what `vllm serve` does first
        parsed.model = parsed.model_tag
    return {name: _plain(value) for name, value in vars(parsed).items() if name not in _SERVE_ALONE}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {CLASS: type(value).__name__} | {name: _plain(inner) for name, inner in vars(value).items() if not name.startswith("_")}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def installed_options() -> dict[str, dict[str, Any]]:
    """Every option of the parser of `vllm serve`: how it takes its value, its other names, what it may be, and the name of its type."""
    from tune_gpu.services.vllm.serve_parser import module_parser

    found = {}
    for action in module_parser()._actions:
        if not action.option_strings:
            continue
        longs = [name for name in action.option_strings if name.startswith("--") and not name.startswith("--no-")]
        also = [name for name in action.option_strings if name != longs[0] and name != f"--no-{longs[0][2:]}"]
        also = also if longs[0] != "--help" else ["-h"]
        found[longs[0][2:]] = {
            "kind": _kind(action), "also": also, "choices": [each for each in action.choices or () if each is not None],
            "type": getattr(action.type, "__name__", str(action.type)),
        }  # fmt: skip
    return found


def _kind(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "switch"
    if isinstance(action, argparse._AppendAction):
        return "append"
    return "on" if action.nargs == 0 else {"+": "values", "?": "optional"}.get(str(action.nargs), "value")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(read_all(json.load(sys.stdin))))
