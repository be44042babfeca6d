"""Tune's TensorBoard logs without PyTorch in the driver."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast


def import_writer() -> None:
    """Import tensorboardX, which Tune's logger uses, as if PyTorch were not installed.

    It imports all of PyTorch (1.3 s and 200 MiB) only to recognise tensors, of which Tune, logging numbers, has none. A program that has
    imported PyTorch already loses nothing.
    """
    if "tensorboardX" in sys.modules or "torch" in sys.modules:
        return
    sys.modules["torch"] = cast(Any, None)  # null makes an import fail with ImportError (Python's import system, "The module cache")
    try:
        importlib.import_module("tensorboardX")
    except ImportError:  # then Tune has no TensorBoard logs
        return
    finally:
        del sys.modules["torch"]
