"""Record the versions, the commit and the device of a run."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.manifest import GitState, Manifest, ProcessRecord
from tune_gpu.common.clock import now
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.config.kinds import Packaged, kinds_with

_VERSIONS_OF = ("tune-gpu", "ray", "torch", "omegaconf", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python and of the packages that measure."""
    found = {"python": platform.python_version()}
    for name in [*_VERSIONS_OF, *(package for kind in kinds_with(Packaged) for package in kind.packages)]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> GitState | None:
    """Return the commit of the source, or None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607

    try:
        return GitState(commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain")))
    except (OSError, subprocess.CalledProcessError):
        return None


def manifest(run_id: str, seed: int, device: DeviceRecord, earlier: Sequence[Manifest] = ()) -> Manifest:
    """Build the manifest of a run that begins now. A resumed run keeps the time at which it first began, and its `earlier` manifests."""
    return Manifest(
        run_id=run_id,
        started_at=earlier[0].started_at if earlier else now(),
        resumed_at=now() if earlier else None,
        argv=tuple(sys.argv),
        seed=seed,
        device=device.kind,
        devices=(device,),
        process=ProcessRecord(pid=os.getpid(), start_ticks=start_ticks(os.getpid()), host=socket.gethostname()),
        host={"platform": platform.platform(), "cores": os.cpu_count()},
        versions=versions(),
        git=git_state(),
        resumed_from=tuple(earlier),
    )
