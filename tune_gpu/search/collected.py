"""The evidence of a search in progress."""

from __future__ import annotations

from collections.abc import Hashable

from tune_gpu.search.evidence import Deployment, Evidence, freedom_of


class Collected:
    """Collects measurements as they arrive, and computes their evidence.

    Runs may be long, so nothing is recomputed while there is no noise.
    """

    def __init__(self) -> None:
        self._deployments: list[Deployment] = []
        self._first: dict[Hashable, float] = {}
        self.known = False
        """Whether the noise is known, by a reported error or a repeat."""
        self.noisy = False
        """Whether there is noise: a reported error above 0, or repeats that differ."""
        self._evidence: Evidence | None = None

    def observe(self, key: Hashable, fitness: float, stderr: float | None, n_windows: int) -> None:
        """Add a measurement of a configuration."""
        repeated = key in self._first
        agrees = self._first.setdefault(key, fitness) == fitness
        self.known |= repeated or stderr is not None
        self.noisy |= not agrees or bool(stderr)
        self._deployments.append(Deployment(key, fitness, stderr, freedom_of(stderr, n_windows)))
        self._evidence = None

    @property
    def evidence(self) -> Evidence:
        """Return the evidence of all measurements so far."""
        if self._evidence is None:
            self._evidence = Evidence(self._deployments)
        return self._evidence
