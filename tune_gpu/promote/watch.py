"""Check that the deployed services serve: all answer their health checks within a deadline, are the ones that were deployed, and require
their key.

Every error of a request counts as `Unhealthy`, because any program may be listening on a port.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tune_gpu.config.schema import PromoteSettings
from tune_gpu.promote.env_file import key_of
from tune_gpu.promote.live_turns import NO_ANSWER, REFUSED, LiveTurns, ask_without_key
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.target import Target
from tune_gpu.services.loopback import DEADLINE_S, NoAnswer, get
from tune_gpu.services.observation import ReportsSettings

_POLL_S = 0.2
OK, _WANTS_KEY = 200, (401, 403)


class Unhealthy(RuntimeError):
    """A deployed service fails a check."""


class Watcher:
    """Checks the deployed services.

    Args:
        settings: the time limits.
        turns: takes live turns; None for none.
    """

    def __init__(self, settings: PromoteSettings, turns: LiveTurns | None = None) -> None:
        self._settings, self._turns = settings, turns
        self._install = Path(settings.install_dir).expanduser()

    @property
    def deadline_s(self) -> float:
        """Return the seconds within which a service must answer after its start."""
        return self._settings.health_deadline_s

    def is_healthy(self, place: Place) -> bool:
        """Return whether the service answers its health check now. A service that requires another key counts as answering."""
        try:
            status, _ = self._get(place, place.health, deadline_s=2.0)
        except NoAnswer:
            return False
        return status == OK or status in _WANTS_KEY

    def wait(
        self, place: Place, target: Target, deployed: DeployedService | None, deadline: float, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until the service answers, and check that it is the deployed one.

        Raise Unhealthy at the deadline (monotonic clock), as soon as the service has failed, or once `given_up` returns True.

        Args:
            place: where it runs.
            target: starts its unit.
            deployed: the service; None to accept any that answers, as after a rollback.
            deadline: monotonic clock, seconds.
            given_up: ends the wait.
        """
        while not self.is_healthy(place):
            if reason := target.failure(place.unit):
                raise Unhealthy(reason)
            if given_up():
                raise Unhealthy(f"{place.name} was not waited for: interrupted")
            if time.monotonic() > deadline:
                raise Unhealthy(f"{place.name} does not answer {place.health_url} {self._settings.health_deadline_s:g} s after the restart")
            time.sleep(_POLL_S)
        if reason := target.failure(place.unit):
            raise Unhealthy(f"{reason}; another server answers {place.health_url}")
        if deployed is None:
            return
        try:
            self._prove(deployed)
            self._prove_locked(deployed)
        except Unhealthy:
            raise
        except Exception as error:
            raise Unhealthy(f"{place.name} at {place.url} does not report what it serves: {_message(error)}") from error

    def _prove(self, deployed: DeployedService) -> None:
        """Raise Unhealthy if another server than the deployed one answers, as far as its kind can find out."""
        kind, place = deployed.service.kind, deployed.place
        if not isinstance(kind, ReportsSettings):
            return
        if other := kind.other(deployed.config, deployed.device, lambda path: self.page(place, path)):
            raise Unhealthy(f"{place.name} at {place.url} {other}")

    def _prove_locked(self, deployed: DeployedService) -> None:
        """Raise Unhealthy if the service answers a request without the key. It would serve everybody who reaches the port."""
        place = deployed.place
        if not place.key_env:
            return
        got = ask_without_key(deployed)
        if got is None or got in REFUSED:
            return
        if got in NO_ANSWER:
            raise Unhealthy(f"{place.name} at {place.url} does not answer a request ({got})")
        how = f"ends with {got}" if got else "is answered"
        raise Unhealthy(f"{place.name} serves without a key (a request without it {how}); it must be started with {place.key_env}")

    def page(self, place: Place, path: str) -> str:
        """Return the service's answer at this path, asked with its key. Raise NoAnswer or Unhealthy."""
        status, body = self._get(place, path)
        if status in _WANTS_KEY:
            raise Unhealthy(f"{place.name} refuses the key in {place.key_env} ({path} answers with status {status})")
        if status != OK:
            raise Unhealthy(f"{place.name}: {path} answers with status {status}")
        return body.decode(errors="replace")

    def probe(self, turn_ms: float | None, print_line: Callable[[str], None] = lambda _line: None) -> float | None:
        """Ask every service once by its own protocol, then take live turns one after another. Return their median latency in ms without the
        first, or None without probes. Raise Unhealthy.

        Args:
            turn_ms: the median that the comparison measured, or None to accept any latency.
            print_line: prints the median.
        """
        n, most = self._settings.probes, self._settings.probe_max_ratio
        if not n or self._turns is None:
            return None
        try:
            taken = self._turns.take(n, lambda place: key_of(place, self._install) or "")
        except Exception as error:
            raise Unhealthy(f"a live turn cannot be taken: {_message(error)}") from error
        if taken.failed:
            raise Unhealthy("; ".join(taken.failed))
        median = taken.median_ms
        print_line(f"  {n} live turns: median {median:.0f} ms")
        if turn_ms is not None and median > most * turn_ms:
            raise Unhealthy(f"live turns take {median:.0f} ms (median), more than {most:g} times the {turn_ms:.0f} ms of the comparison")
        return median

    def _get(self, place: Place, path: str, deadline_s: float = DEADLINE_S) -> tuple[int, bytes]:
        return get(place.url.rstrip("/") + path, key_of(place, self._install) or "", deadline_s)


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
