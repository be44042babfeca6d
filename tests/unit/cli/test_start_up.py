"""What a run waits for before its first candidate: nothing is imported that it does not need."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
from tune_gpu.cli import launch
launch._new("spica_gpu_allocation", ["device=cpu"], trust=False)
import tune_gpu.experiment.run
from tune_gpu.ray_tune.compat import import_tensorboard_writer
import_tensorboard_writer()
import_tensorboard_writer()
from ray.tune.logger import TBXLoggerCallback
TBXLoggerCallback()
print(*(name for name in ("torch", "sklearn", "scipy.signal", "scipy.stats", "vllm") if name in sys.modules))
import torch
print(torch.ones(1).item())
"""


def test_the_driver_imports_neither_pytorch_nor_guided_search() -> None:
    """PyTorch can still be imported afterwards."""
    found = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.splitlines() == ["", "1.0"]
