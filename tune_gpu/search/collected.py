"""The evidence of a search that is still going on."""

from __future__ import annotations

from collections.abc import Hashable

from tune_gpu.search.evidence import Deployment, Evidence, freedom_of


class Collected:
    """Measurements as they arrive, and what they say together.

    Runs may be long: while there is no noise, nothing is computed anew.
    """

    def __init__(self) -> None:
        self._deployments: list[Deployment] = []
        self._first: dict[Hashable, float] = {}
        self.known = False
        """Whether anything is known of the noise: a reported error, or a repeat."""
        self.noisy = False
        """Whether there is noise: a reported error above 0, or repeats that differ."""
        self._evidence: Evidence | None = None

    def observe(self, key: Hashable, fitness: float, stderr: float | None, n_windows: int) -> None:
        """Note a measurement of a configuration."""
        repeated = key in self._first
        agrees = self._first.setdefault(key, fitness) == fitness
        self.known |= repeated or stderr is not None
        self.noisy |= not agrees or bool(stderr)
        self._deployments.append(Deployment(key, fitness, stderr, freedom_of(stderr, n_windows)))
        self._evidence = None

    @property
    def evidence(self) -> Evidence:
        """Return what all measurements so far say together."""
        if self._evidence is None:
            self._evidence = Evidence(self._deployments)
        return self._evidence
