"""Check the flags of a space with the parser of the installed vLLM, before anything starts."""

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import write_whole
from tune_gpu.common.errors import UserError
from tune_gpu.common.places import cache_folder, python_path
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.search.parameter import Parameter
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.space_values import values_to_check
from tune_gpu.services.base import Service
from tune_gpu.services.registry import services_of
from tune_gpu.services.vllm.memory.engine_memory import installed_vllm_version
from tune_gpu.services.vllm.options import read_name
from tune_gpu.services.vllm.settings import VllmSettings
from tune_gpu.services.vllm.setup import serve_flags

_WORDS = ("dtype", "kv_cache_dtype")
"""Settings whose words the parser checks. The other settings are numbers and switches, or text that the parser accepts unchecked."""
_IMPORT_TIMEOUT_S = 240.0
_KEPT = 5_000
"""Number of accepted command lines that are remembered."""


def check_flags(config: ExperimentConfig, space: SearchSpace) -> None:
    """Raise UserError for a flag that vLLM's parser refuses. Import vLLM for that, unless every command line was accepted before.

    Nothing is checked if there is nothing to refuse, if vLLM is not installed, or if the servers run on a cluster.
    """
    if config.ray.address is not None or importlib.util.find_spec("vllm") is None:
        return
    for service in services_of(config.services):
        if isinstance(service.settings, VllmSettings) and _asks(service, space):
            _check_service(config, space, service.name)


def _check_service(config: ExperimentConfig, space: SearchSpace, name: str) -> None:
    commands = [(where, params, settings_with(config, params)[name]) for where, params in _candidates(config, space, name)]
    lines = [["--model", "model", *serve_flags(settings)] for _, _, settings in commands]
    for (where, params, settings), reason in zip(commands, refusals(lines), strict=True):
        if reason is not None:
            raise UserError(f"{_key(config, name, where, params, settings, reason)}: vLLM refuses it: {reason}. Change or remove it.")


def _asks(service: Service, space: SearchSpace) -> bool:
    settings = service.settings
    if settings.extra_args or any(getattr(settings, word) != "auto" for word in _WORDS):
        return True
    return any(_is_asked(parameter, service.name) for parameter in space.parameters.values())


def _is_asked(parameter: Parameter, service: str) -> bool:
    return parameter.target.service == service and parameter.target.setting in ("extra_args", *_WORDS)


def _candidates(config: ExperimentConfig, space: SearchSpace, service: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the baseline, and one candidate for every value of each knob (not the whole product), with the name of the knob that varies."""
    yield "", _candidate(space, config.baseline)
    for parameter in space.parameters.values():
        for value in values_to_check(parameter) if _is_asked(parameter, service) else ():
            yield parameter.name, _candidate(space, {**config.baseline, **_parents(space, parameter), parameter.name: value})


def _parents(space: SearchSpace, parameter: Parameter) -> dict[str, Any]:
    """Return values of other parameters that make this one active."""
    found: dict[str, Any] = {}
    for name, values in parameter.when:
        found |= _parents(space, space.parameters[name]) | {name: values[0]}
    return found


def _candidate(space: SearchSpace, wanted: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if space.active(parameter, params):
            params[name] = wanted[name] if name in wanted else next(values_to_check(parameter))
    return params


def _key(config: ExperimentConfig, service: str, where: str, params: Mapping[str, Any], settings: VllmSettings, reason: str) -> str:
    """Return the key to change: the knob that varies, or the setting of the flag that the reason names."""
    if where:
        return f"parameters.{where}={params[where]}"
    for flag in re.findall(r"--([\w-]+)", reason):
        option = read_name(flag).option
        targets = [f"extra_args.{name}" for name in settings.extra_args if read_name(name).option == option] + [option.replace("-", "_")]
        for name in params:
            if config.parameters[name].target in [f"{service}.{target}" for target in targets]:
                return f"parameters.{name}={params[name]}"
        if len(targets) > 1 or hasattr(settings, targets[0]):
            return f"services.{service}.{targets[0]}"
    return f"services.{service}.extra_args"


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
