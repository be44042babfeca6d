"""Find the CUDA libraries that CTranslate2 opens by name at run time.

CTranslate2 only asks the loader (dlopen), because its wheel contains neither the libraries nor a path to them. The loader does not search
the folders of NVIDIA's wheels, and nothing in Whisper's process imports torch, which would load them. A library that is already loaded is
found by its name (dlopen(3)).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

WANTED_BY_WHISPER = ("libcublasLt.so.12", "libcublas.so.12")
"""Libraries of CTranslate2 4; the second needs the first."""
THE_LOADERS = "the loader's path"


def find_library(name: str) -> str | None:
    """Return where `load_for_whisper` finds a library: the loader's path, else the wheels of this Python, or None."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(name)
        return THE_LOADERS
    # Wherever packages are: for Debian's and Ubuntu's own Python, and so in vLLM's images, not in a folder of sys.prefix.
    return next((str(path) for folder in filter(None, sys.path) for path in sorted(Path(folder).glob(f"nvidia/*/lib/{name}"))), None)


def load_for_whisper() -> None:
    """Load the libraries that only the wheels have. If one cannot be loaded, CTranslate2 reports it."""
    for name in WANTED_BY_WHISPER:
        place = find_library(name)
        if place not in (None, THE_LOADERS):
            with contextlib.suppress(OSError):
                ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL)
