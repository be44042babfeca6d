"""Check the rest of the machine: programs, ports, memory, permissions, disk, shared memory."""

from __future__ import annotations

import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.installed import required, version_of
from tune_gpu.common.places import cache_folder, existing, write_error
from tune_gpu.services.findings import DoctorFinding, fail, note, ok

GIB = 2**30
LEAST_MEMORY_GIB = 4.0
"""Least memory in GiB for the default space on the CPU: the imports of its engine and a toy model take about 3 GiB, its recogniser half a GiB."""
LEAST_DISK_GIB = 2.0
LEAST_SHARED_GIB = 0.5
LEAST_FILES = 4096
DASHBOARD_PORT = 8265


def check_programs() -> Iterator[DoctorFinding]:
    """Check the versions of Python and Ray."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield ok("python", python) if (3, 11) <= sys.version_info[:2] < (3, 14) else fail("python", python, "use Python 3.11 to 3.13")
    there, wanted = version_of("ray"), required("ray")
    if there is None:
        yield fail("Ray", "not installed", "make install")
    elif wanted is not None and not wanted.contains(there):
        yield fail("Ray", f"{there}, but this program needs {wanted}", f"pip install 'ray{wanted}'")
    else:
        yield ok("Ray", there)


def check_ports(port_range: Sequence[int], dashboard: int = DASHBOARD_PORT) -> Iterator[DoctorFinding]:
    """Check that ports are free for the services and for the dashboard."""
    from tune_gpu.common.process.ports import free_port

    try:
        free_port(port_range)
        yield ok("ports", f"there are free ports from {port_range[0]} to {port_range[1]} on 127.0.0.1")
    except UserError as error:
        yield fail("ports", str(error), "end the programs that hold them (ss -ltnp), or set another run.port_range")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", dashboard))
            yield ok("dashboard port", f"{dashboard} is free")
        except OSError:
            yield note("dashboard port", f"{dashboard} is taken", "another Ray may be running with its dashboard there; the next dashboard takes another port")


def check_memory(total_gib: float, free_gib: float) -> Iterator[DoctorFinding]:
    """Check the memory of the machine (or the container)."""
    text = f"{free_gib:.1f} of {total_gib:.1f} GiB are free"
    if free_gib < LEAST_MEMORY_GIB:
        yield fail("memory", text, f"the default space needs about {LEAST_MEMORY_GIB:.0f} GiB: end other programs, or raise the container's limit")
    else:
        yield ok("memory", text)


def check_folders(artifacts: Path) -> Iterator[DoctorFinding]:
    """Check the permission to write results, models and Ray's files, and the free space. Ray stops storing on a disk that is 95 % full."""
    for name, folder, setting in (("artifacts", artifacts, "run.artifacts_dir"), ("cache", cache_folder(), "TUNE_GPU_CACHE"), ("temporary files", Path(tempfile.gettempdir()), "TMPDIR")):
        there = existing(folder.absolute())
        if error := write_error(there):
            yield fail(f"{name}: permissions", f"{folder}: {error.strerror}", f"set {setting} to a folder that this user can write")
            continue
        usage = shutil.disk_usage(there)
        text = f"{folder}: {usage.free / GIB:.1f} GiB free"
        if usage.free / GIB < LEAST_DISK_GIB or usage.free < 0.05 * usage.total:
            yield fail(f"{name}: disk", f"{text} of {usage.total / GIB:.0f}", f"free disk space, or set {setting} to a folder on another disk")
        else:
            yield ok(f"{name}: disk", text)


def check_limits(shared: Path = Path("/dev/shm")) -> Iterator[DoctorFinding]:  # noqa: S108 - only read
    """Check the shared memory, which Ray and vLLM's workers use, and the limit of open files."""
    free = shutil.disk_usage(shared).free / GIB if shared.exists() else 0.0
    if free < LEAST_SHARED_GIB:
        yield fail("shared memory", f"{shared}: {free:.2f} GiB free", "docker run --shm-size=2g, or mount -o remount,size=2g /dev/shm")
    else:
        yield ok("shared memory", f"{shared}: {free:.1f} GiB free")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < LEAST_FILES:
        yield note("open files", f"at most {soft} at once", f"ulimit -n {LEAST_FILES if hard < 0 else min(LEAST_FILES, hard)}")
    else:
        yield ok("open files", "no limit" if soft < 0 else f"at most {soft} at once")
