"""Distinguish an out-of-memory error of the process itself (CUDA or an allocator reports it in the log) from a kill by the kernel, which
the log does not show."""

from __future__ import annotations

import dataclasses

from tune_gpu.common.failures import Failure, FailureKind
from tune_gpu.common.process.cgroup import oom_kills

_UNEXPLAINED = (FailureKind.STARTUP_CRASH, FailureKind.SERVICE_LOST)


class KernelOomWatch:
    """Compare the kernel's count of out-of-memory kills with that at a service's start."""

    def __init__(self) -> None:
        self._before, _ = oom_kills()

    def explain(self, found: Failure) -> Failure:
        """Return `oom_killed` if the service's log explains nothing and the kernel has killed a process for lack of memory since, else
        `found`."""
        now, file = oom_kills()
        if found.kind not in _UNEXPLAINED or now <= self._before:
            return found
        evidence = f"{file}: oom_kill rose from {self._before} to {now} while it ran"
        return dataclasses.replace(
            found,
            kind=FailureKind.OOM_KILLED,
            message="the kernel killed it because host memory ran out. Use a smaller model or cache, or raise its cgroup's limit",
            evidence=f"{evidence}; {found.evidence}" if found.evidence else evidence,
        )
