"""What this process's control group allows and has suffered: memory limit, memory in use, kills for want of memory. Versions 1 and 2."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60


@dataclass(frozen=True)
class MemoryGroup:
    """The folder of a memory cgroup."""

    folder: Path
    version: int

    def limit(self) -> int | None:
        """Bytes that its processes may have together; null if there is no limit."""
        number = _number(self.folder / ("memory.max" if self.version == 2 else "memory.limit_in_bytes"))
        return None if number is None or number >= _UNLIMITED else number

    def used(self) -> int:
        """Bytes in use, page cache that can be dropped at once left out."""
        usage = _number(self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")) or 0
        cache = _field(self.folder / "memory.stat", "inactive_file" if self.version == 2 else "total_inactive_file") or 0
        return max(0, usage - cache)

    def oom_kills(self) -> int | None:
        """How many of its processes were killed for want of memory; null where the kernel does not count them."""
        return _field(self.folder / ("memory.events" if self.version == 2 else "memory.oom_control"), "oom_kill")


def memory_group(own: str | None = None, root: Path = ROOT) -> MemoryGroup | None:
    """The memory cgroup of this process: the innermost of its path that is mounted here (a container sees its own as the root).

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
                return MemoryGroup(folder, version)
    return None


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _field(path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError):
        if match := re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE):
            return int(match[1])
    return None
