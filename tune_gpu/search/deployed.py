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
    """Standard error within the deployment. None if it is unknown, 0 without error."""
    freedom: float = math.inf
    """Degrees of freedom of that error: one less than its number of windows."""
    at: float = 0.0
    """Time of the measurement, in any unit."""
    anchor: bool = False
    """True for a deployment that shows the noise of the run."""
    clips: Mapping[str, float] = field(default_factory=dict)
    """Error by the choice of the clips, which all deployments share: each clip's share, whose squares add up to the variance. `stderr` does
    not include it."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or not (self.stderr is None or 0.0 <= self.stderr < math.inf) or not math.isfinite(self.at) or not self.freedom > 0.0:
            raise ValueError(f"{self}: not a result. Use finite values, an error of at least 0 or None, and a freedom above 0.")


def freedom_of(stderr: float | None, n_windows: int) -> float:
    """Return the degrees of freedom of an error from this many windows; infinite for an unknown error, and for 0."""
    return max(1.0, n_windows - 1.0) if stderr else math.inf
