"""What Whisper's process loads before CTranslate2 asks for it by name; the loader is played."""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_gpu.services.faster_whisper.cuda_libraries import THE_LOADERS, WANTED_BY_WHISPER, find_library
from tune_gpu.services.faster_whisper.transcriber import load_model


class Loader:
    """Knows some libraries by their names; those with a path it loads."""

    def __init__(self, known: set[str]) -> None:
        self.known = known
        self.loaded: list[str] = []

    def __call__(self, name: str, mode: int = ctypes.DEFAULT_MODE) -> None:
        if "/" not in name and name not in self.known:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        if "/" in name:
            assert mode == ctypes.RTLD_GLOBAL
            self.loaded.append(Path(name).name)


def wheel(packages: Path) -> Path:
    """As `pip install nvidia-cublas-cu12` lays it out."""
    folder = packages / "nvidia" / "cublas" / "lib"
    folder.mkdir(parents=True)
    for name in WANTED_BY_WHISPER:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("packages", ["lib/python3.11/site-packages", "local/lib/python3.12/dist-packages"])
@pytest.mark.parametrize(("device", "known", "loaded"), [
    ("cuda", set(), ["libcublasLt.so.12", "libcublas.so.12"]), ("cuda", set(WANTED_BY_WHISPER), []), ("cpu", set(), []),
])
def test_pips_libraries_are_loaded_if_the_loader_does_not_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: str, device: str, known: set[str], loaded: list[str]
) -> None:
    """Before the model."""
    loader, seen = Loader(known), []
    folder = wheel(tmp_path / packages)

    def model(*_given: Any, **_named: Any) -> None:
        seen.append(list(loader.loaded))

    monkeypatch.setattr(ctypes, "CDLL", loader)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / packages)])
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=model))
    load_model(argparse.Namespace(model="base", device=device, compute_type="default", cpu_threads=1, num_workers=1))
    assert seen == [loaded], "before the model, for it asks while it loads"
    assert find_library("libcublas.so.12") == (THE_LOADERS if known else str(folder / "libcublas.so.12"))
    assert find_library("libcudart.so.12") is None
