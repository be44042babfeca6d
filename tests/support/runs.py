"""The recorded runs that tests and notebooks read: real services on a CPU (tests/data/runs/README.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARTIFACTS = Path(__file__).parents[1] / "data" / "runs"
RUN = "20261124-190931"
"""Finished, with a real failure (a load generator that was late); of a program that kept no trace of the device."""
INTERRUPTED = "20261124-202213"
"""Stopped in its second generation, with the device second by second and the plan's predictions."""
WHOLE = "20261125-222441"
"""Finished: every configuration of its space, guided R-Zero, a confirmation of three rounds, the device second by second."""
EXPERIMENT = "spica_gpu_allocation"
MISLEADING = Path(__file__).parents[1] / "data" / "recorded"
"""Recorded runs whose first page misled (tests/data/recorded/README.md)."""
OFF_ITS_FRONT, ABOVE_ITS_TARGET = "20261130-073158", "20261130-082228"


def copy_to(folder: Path, run_id: str = RUN) -> Path:
    """A copy that may be broken, of the two oldest runs; its run's folder."""
    shutil.copytree(ARTIFACTS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(WHOLE))
    path = folder / EXPERIMENT / RUN
    return path.rename(path.with_name(run_id)) if run_id != RUN else path


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
