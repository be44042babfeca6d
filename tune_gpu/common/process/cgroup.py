"""Read this process's control group, version 1 or 2: memory limit, memory in use, and out-of-memory kills."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60


@dataclass(frozen=True)
class MemoryGroup:
    """A memory cgroup: its folder, and how many of its ancestors' folders are visible here."""

    folder: Path
    version: int
    n_above: int = 0

    def limit(self) -> int | None:
        """Return the memory limit in bytes: the lowest of its own and its ancestors' limits, or None without a limit."""
        number = self._limit_of(self._tightest())
        return None if number >= _UNLIMITED else number

    def used(self) -> int:
        """Return the bytes in use in the group that sets the limit, without page cache that can be dropped at once."""
        folder = self._tightest()
        usage = _number(folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")) or 0
        cache = _field(folder / "memory.stat", "inactive_file" if self.version == 2 else "total_inactive_file") or 0
        return max(0, usage - cache)

    def oom_kills(self) -> int | None:
        """Return how many of its processes the kernel has killed for lack of memory, or None if the kernel does not count them."""
        return _field(self.folder / ("memory.events" if self.version == 2 else "memory.oom_control"), "oom_kill")

    def _tightest(self) -> Path:
        return min((self.folder, *list(self.folder.parents)[: self.n_above]), key=self._limit_of)  # the innermost of equal limits

    def _limit_of(self, folder: Path) -> int:
        number = _number(folder / ("memory.max" if self.version == 2 else "memory.limit_in_bytes"))
        return _UNLIMITED if number is None else min(number, _UNLIMITED)


def memory_group(own: str | None = None, root: Path = ROOT) -> MemoryGroup | None:
    """Return the memory cgroup of this process: the innermost folder of its path that is mounted here. A container sees its own as the
    root.

    Args:
        own: the content of /proc/self/cgroup.
        root: where cgroups are mounted.
    """
    if own is None:
        try:
            own = Path("/proc/self/cgroup").read_text()
        except OSError:
            return None
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            base, version, marker = root / "memory", 1, "memory.limit_in_bytes"
        elif controllers == "":
            base, version, marker = root, 2, "memory.current"
        else:
            continue
        for folder in (base / path.lstrip("/"), base):
            if (folder / marker).exists():
                return MemoryGroup(folder, version, len(folder.relative_to(base).parts))
    return None


def oom_kills() -> tuple[int, str]:
    """Return a counter of out-of-memory kills, and the file that holds it.

    The counter is that of this process's own control group (version 2 includes its descendants), or else that of the whole machine, which
    may include kills of another container.
    """
    group = memory_group()
    own = group.oom_kills() if group is not None else None
    if group is not None and own is not None and group.version == 2:
        return own, str(group.folder / "memory.events")
    return max(_field(Path("/proc/vmstat"), "oom_kill") or 0, own or 0), "/proc/vmstat"  # a container may hide that file and still show its own group


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _field(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):
        if match := re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE):
            return int(match[1])
    return None
