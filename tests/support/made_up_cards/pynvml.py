"""NVML for the processes of a cluster whose cards are made up: it stands in the PYTHONPATH before the real one.

Every `GPU-…` is a card (`cards.py`).
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_spec = PathFinder.find_spec("pynvml", [path for path in sys.path if Path(path).resolve() != _HERE])
assert _spec is not None
assert _spec.loader is not None
_mine, _real = sys.modules[__name__], module_from_spec(_spec)
sys.modules["pynvml"] = _real  # it looks there for the codes of which it makes error types
_spec.loader.exec_module(_real)
sys.modules["pynvml"] = _mine
globals().update({name: value for name, value in vars(_real).items() if not name.startswith("__")})

from tests.support.made_up_cards.cards import Cards  # noqa: E402 - it imports this module, for the library's errors

_cards = Cards()
globals().update({name: getattr(_cards, name) for name in dir(_cards) if name.startswith("nvml")})
