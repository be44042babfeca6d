"""Parse lists of CPU cores, in the syntax of taskset."""

from __future__ import annotations

import re

_MOST_CORES = 8192
"""Most cores that Linux can be built for."""


def parse_cores(cores: str | None) -> list[int] | None:
    """Return the cores of a list in the syntax of taskset: `"0,2-3"` -> [0, 2, 3]. Raise ValueError for anything else."""
    if cores is None or cores == "":
        return None
    found: set[int] = set()
    for part in str(cores).split(","):
        named = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part, re.ASCII)
        low, high = (int(named[1]), int(named[2] or named[1])) if named else (0, -1)
        if not low <= high < _MOST_CORES:
            raise ValueError(f"{str(cores)[:80]!r}: not a list of cores. Use cores below {_MOST_CORES}, such as 0,2-3.")
        found.update(range(low, high + 1))
    return sorted(found)
