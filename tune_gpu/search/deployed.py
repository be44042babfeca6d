"""One measured deployment, the unit of evidence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Deployment:
    """One measured deployment of a configuration.

    Raises:
        ValueError: a value that is not finite, or an error that is negative or not finite.
    """

    key: Hashable
    value: float
    stderr: float | None = None
    """Standard error within the deployment. Null if it is unknown, 0 if there is none."""
    freedom: float = math.inf
    """Degrees of freedom of that error: one less than the windows that it comes from."""
    at: float = 0.0
    """When it was measured, in any unit."""
    anchor: bool = False
    """It was deployed to show the noise of the run."""
    clips: Mapping[str, float] = field(default_factory=dict)
    """Error of the choice of the clips, which all deployments hear: each clip's share, whose squares add up to the variance. Not in `stderr`."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or not (self.stderr is None or 0.0 <= self.stderr < math.inf) or not math.isfinite(self.at) or not self.freedom > 0.0:
            raise ValueError(f"{self}: not a result. Use finite values, an error of at least 0 or None, and a freedom above 0.")


def freedom_of(stderr: float | None, n_windows: int) -> float:
    """Return the degrees of freedom of an error that comes from so many windows. One that is 0 is not an estimate."""
    return max(1.0, n_windows - 1.0) if stderr else math.inf
