"""Ask the parser of the installed vLLM which flags it refuses, before anything starts."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.places import cache_folder, python_path
from tune_gpu.services.base import Refusal
from tune_gpu.services.vllm.memory.engine_memory import installed_vllm_version
from tune_gpu.services.vllm.options import read_name
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import serve_flags

_WORDS = ("dtype", "kv_cache_dtype")
"""Settings whose words the parser checks. The other settings are numbers and switches, or text that the parser accepts unchecked."""
ASKED = ("extra_args", *_WORDS)
_IMPORT_TIMEOUT_S = 240.0
_KEPT = 5_000
"""Number of accepted command lines that are remembered."""


def refused(settings: Sequence[VllmSettings]) -> list[Refusal | None]:
    """Return why vLLM's parser refuses the flags of each of these settings, or None. Import vLLM for that, unless it accepted all of them before.

    Nothing is refused that has no flags which the parser checks, and nothing at all if vLLM is not installed.
    """
    asked = [number for number, each in enumerate(settings) if each.extra_args or any(getattr(each, word) != "auto" for word in _WORDS)]
    found: list[Refusal | None] = [None] * len(settings)
    if asked and importlib.util.find_spec("vllm") is not None:
        reasons = refusals([["--model", "model", *serve_flags(settings[number])] for number in asked])
        for number, reason in zip(asked, reasons, strict=True):
            found[number] = None if reason is None else _refusal(settings[number], reason)
    return found


def _refusal(settings: VllmSettings, reason: str) -> Refusal:
    """Return the refusal with the settings of the flags that the parser names."""
    means: list[str] = []
    for flag in re.findall(r"--([\w-]+)", reason):
        option = read_name(flag).option
        means += [f"extra_args.{name}" for name in settings.extra_args if read_name(name).option == option]
        means += [own] if hasattr(settings, own := option.replace("-", "_")) else []
    return Refusal(f"vLLM refuses it: {reason}", (*means, "extra_args"))


def refusals(lines: list[list[str]]) -> list[str | None]:
    """Return why vLLM's parser refuses each command line: None if it accepts the line, or if the parser cannot run."""
    store = _store()
    prints = [hashlib.sha256(json.dumps([installed_vllm_version(), line]).encode()).hexdigest() for line in lines]
    known = _accepted(store)
    fresh = {each: line for each, line in zip(prints, lines, strict=True) if each not in known}
    if not fresh:
        return [None] * len(lines)
    if (answers := _ask(list(fresh.values()))) is None:
        return [None] * len(lines)
    reasons = dict(zip(fresh, answers, strict=True))
    accepted = [each for each, reason in reasons.items() if reason is None]
    with contextlib.suppress(OSError):  # the parser will only run again
        store.parent.mkdir(parents=True, exist_ok=True)
        write_whole(store, json.dumps([*known, *accepted][-_KEPT:]))
    return [reasons.get(each) for each in prints]


def _store() -> Path:
    return cache_folder() / "accepted_flags.json"


def _accepted(store: Path) -> list[str]:
    try:
        found = outside_files.read_json(store, outside_files.CACHE)
    except UserError:
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _ask(lines: list[list[str]]) -> list[str | None] | None:
    """Return the parser's answers, or None if vLLM cannot run.

    The parser runs in its own process, because vLLM's imports are large and change the environment. Secrets go through a pipe.
    """
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        out = Path(folder) / "reasons.json"
        command = [sys.executable, "-P", "-m", "tune_gpu.services.vllm.serve_parser", str(out)]
        env = os.environ | {"PYTHONPATH": python_path(os.environ.get("PYTHONPATH")), "VLLM_LOGGING_LEVEL": "ERROR"}
        try:
            subprocess.run(
                command, input=json.dumps(lines), text=True, env=env, timeout=_IMPORT_TIMEOUT_S, check=True, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            return list(json.loads(out.read_text(encoding="utf-8")))
        except (OSError, ValueError, subprocess.SubprocessError):  # vLLM's first start reports why it cannot be imported
            return None
