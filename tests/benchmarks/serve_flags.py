"""Which flags mean to a deployed vLLM what they meant to the measured one: `python -m tests.benchmarks.serve_flags CASES.json --json OUT`.

A case is `{name, settings, extra_args, key, want}`: settings of `services.vllm`, further flags, the key of the parsed namespace, and its right value or
"refused" (a text that begins so; with "or equal to the knob" the knob's own value is right, too). Each case is checked as a space is; then its command
line, and its file by the loaders of both deployed commands, go through vLLM's own parsers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.namespaces import CLASS, ask
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.secret_check import check_secrets
from tune_gpu.experiment.space_check import check_space
from tune_gpu.promote.render import services_of
from tune_gpu.services.vllm.server import VllmServer

_PARAMETERS = {"beam": {"target": "whisper.beam_size", "values": [1]}}


def space_of(case: Mapping[str, Any]) -> ExperimentConfig:
    """The case as a space. Raises UserError if it is refused."""
    content = {"parameters": _PARAMETERS, "services": {"vllm": {**case.get("settings", {}), "extra_args": case.get("extra_args", {})}}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.yaml"
        path.write_text(json.dumps(content, ensure_ascii=False))  # texts are quoted, so `1e3` stays one
        config = load_config(str(path), [], "cpu", trust=True)
    check_space(config)
    check_secrets(config)
    return config


def queries_of(config: ExperimentConfig) -> list[dict[str, Any]]:
    """The measured command line, and the deployed file as `vllm serve` and as the API server's module read it."""
    server = VllmServer(config.services.vllm, device="cpu", port_range=[20000, 29999], choose_port=lambda _range: 20000)
    vllm = next(service for service in services_of(config, {}, "cpu") if service.name == "vllm")
    return [{"argv": server.arguments()}, *({"file": vllm.config_text, "command": command} for command in ("serve", "module"))]


def judge(cases: list[dict[str, Any]], read: Callable[[list[dict[str, Any]]], list[Any]] = ask) -> list[dict[str, Any]]:
    """For each case `name, refused, measured, promoted, right`.

    Args:
        cases: as the module's text says.
        read: asks the parsers about queries; in another process by default.
    """
    refused: dict[int, str] = {}
    queries: dict[int, list[dict[str, Any]]] = {}
    for number, case in enumerate(cases):
        try:
            queries[number] = queries_of(space_of(case))
        except UserError as error:
            refused[number] = str(error)
    answers = iter(read([query for each in queries.values() for query in each]) if queries else [])
    found = {number: [next(answers) for _ in each] for number, each in queries.items()}
    return [_judged(case, refused.get(number), found.get(number, [])) for number, case in enumerate(cases)]


def _judged(case: Mapping[str, Any], refused: str | None, found: list[Any]) -> dict[str, Any]:
    if found and isinstance(found[0], str):  # `plan` and `launch` ask the same parser
        refused = f"vLLM refuses it: {found[0]}"
    values = [f"refused: {each}" if isinstance(each, str) else value_at(each, case["key"]) for each in found]
    measured, serve, module = values if refused is None else (None, None, None)
    agree = refused is None and measured == serve == module
    want = case["want"]
    if isinstance(want, str) and want.startswith("refused"):
        knob = case.get("settings", {}).get(str(case["key"]).replace("-", "_"))
        right = refused is not None or ("equal" in want and agree and means(measured, knob))
    else:
        right = agree and means(measured, want)
    return {"name": case["name"], "refused": refused, "measured": measured, "promoted": serve if serve == module else {"serve": serve, "module": module}, "right": right}


def value_at(namespace: Mapping[str, Any], key: str) -> Any:
    """A value of a namespace, or one below it (`speculative_config.method`)."""
    head, *below = key.split(".")
    value: Any = namespace.get(head.replace("-", "_"), f"there is no {head} in the namespace")
    for name in below:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def means(found: Any, want: Any) -> bool:
    """Equal; of an object with many attributes those that are wanted."""
    if isinstance(found, dict) and CLASS in found and isinstance(want, dict):
        return all(name in found and means(found[name], value) for name, value in want.items())
    return type(found) is type(want) and bool(found == want) if isinstance(found, bool) or isinstance(want, bool) else bool(found == want)


def main() -> None:
    """Print a table; write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = judge(json.loads(given.cases.read_text()))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    table = Table("case", "right", "measured", "promoted", "refused")
    for row in results:
        table.add_row(row["name"], "yes" if row["right"] else "NO", json.dumps(row["measured"]), json.dumps(row["promoted"]), row["refused"] or "")
    Console().print(table)
    print(f"{sum(row['right'] for row in results)} of {len(results)} right")


if __name__ == "__main__":
    main()
