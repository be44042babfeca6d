"""Whose out-of-memory it was: the process's own (CUDA's or an allocator's, it says so in its log) or the kernel's (it says nothing)."""

from __future__ import annotations

import dataclasses

from tune_gpu.common.failures import Failure, FailureKind
from tune_gpu.common.process.cgroup import oom_kills

_UNEXPLAINED = (FailureKind.STARTUP_CRASH, FailureKind.SERVICE_LOST)


class KernelOomWatch:
    """Notes the kernel's count of out-of-memory kills when a service is started."""

    def __init__(self) -> None:
        self._before, _ = oom_kills()

    def explain(self, found: Failure) -> Failure:
        """`oom_killed` where the service's own log explains nothing and the kernel has killed for want of memory since."""
        now, file = oom_kills()
        if found.kind not in _UNEXPLAINED or now <= self._before:
            return found
        evidence = f"{file}: oom_kill rose from {self._before} to {now} while it ran"
        return dataclasses.replace(
            found,
            kind=FailureKind.OOM_KILLED,
            message="the kernel killed it for want of memory: a smaller model or cache, or a wider limit of its cgroup",
            evidence=f"{evidence}; {found.evidence}" if found.evidence else evidence,
        )
