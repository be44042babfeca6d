"""The CUDA libraries that CTranslate2 opens by their names at run time, and where they are.

It asks the loader alone (dlopen; its wheel has neither the libraries nor a path to them), which does not look where pip puts NVIDIA's wheels, and
nothing in Whisper's process imports the torch that would. What has been loaded from there before is found by its name (dlopen(3)).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

WANTED_BY_WHISPER = ("libcublasLt.so.12", "libcublas.so.12")
"""CTranslate2 4's; the second needs the first."""
THE_LOADERS = "the loader's path"


def find_library(name: str) -> str | None:
    """Return where `load_for_whisper` takes a library from: the loader, else the wheels that this Python imports from; null for nowhere."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(name)
        return THE_LOADERS
    # Wherever packages are: of Debian's and Ubuntu's own Python, and so in vLLM's images, that is no folder of sys.prefix.
    return next((str(path) for folder in filter(None, sys.path) for path in sorted(Path(folder).glob(f"nvidia/*/lib/{name}"))), None)


def load_for_whisper() -> None:
    """Load what only the wheels have. What cannot be loaded is left to CTranslate2, which says what it misses."""
    for name in WANTED_BY_WHISPER:
        place = find_library(name)
        if place not in (None, THE_LOADERS):
            with contextlib.suppress(OSError):
                ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
