"""Check that the deployed services serve: both answer `/health` within a deadline, require their key, and live voice turns are fast enough.

Every error of a request counts as `Unhealthy`, because any program may be listening on a port.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tune_gpu.config.schema import PromoteSettings, ServiceTarget, WorkloadSettings
from tune_gpu.metrics import DEFAULT_PAIR
from tune_gpu.promote.env_file import key_of
from tune_gpu.promote.target import Target
from tune_gpu.services.loopback import DEADLINE_S, NoAnswer, get
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.stages import turn_stages
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn, take_turn
from tune_gpu.workload.window import client_session

_POLL_S = 0.2
OK, _WANTS_KEY = 200, (401, 403)
_WORK = {"vllm": ("GET", "/v1/models"), "whisper": ("POST", "/v1/audio/transcriptions")}
"""Requests that need the key. vLLM's `/health` does not, and that of another Whisper server than ours may not."""


class Unhealthy(RuntimeError):
    """A deployed service fails a check."""


@dataclass(frozen=True)
class Expected:
    """Expected properties of the deployed services."""

    model: str | None
    """The model name that vLLM must serve, or None to accept any (after a rollback)."""
    device: str | None
    turn_ms: float | None
    """The median that the comparison measured, in ms, or None to accept any latency."""

    @property
    def serves_anything(self) -> bool:
        """Return whether any answer is accepted, as after a rollback."""
        return self.model is None and self.device is None


class Watcher:
    """Checks the deployed services.

    Args:
        settings: their addresses and time limits.
        workload: the settings of a live turn.
        utterances: the recordings for live turns.
    """

    def __init__(self, settings: PromoteSettings, workload: WorkloadSettings, utterances: Sequence[Utterance]) -> None:
        self._settings, self._workload, self._utterances = settings, workload, utterances

    @property
    def deadline_s(self) -> float:
        """Return the seconds within which a service must answer after its start."""
        return self._settings.health_deadline_s

    def is_healthy(self, name: str) -> bool:
        """Return whether the service answers `/health` now. A service that requires another key counts as answering."""
        try:
            status, _ = self._get(name, "/health", deadline_s=2.0)
        except NoAnswer:
            return False
        return status == OK or status in _WANTS_KEY

    def wait(self, name: str, target: Target, expected: Expected, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until the service answers, and check that it is the deployed one.

        Raise Unhealthy at the deadline (monotonic clock), as soon as the service has failed, or once `given_up` returns True.
        """
        where = self._where(name)
        while not self.is_healthy(name):
            if reason := target.failure(where.unit):
                raise Unhealthy(reason)
            if given_up():
                raise Unhealthy(f"{name} was not waited for: interrupted")
            if time.monotonic() > deadline:
                raise Unhealthy(f"{name} does not answer {where.url}/health {self._settings.health_deadline_s:g} s after the restart")
            time.sleep(_POLL_S)
        if reason := target.failure(where.unit):
            raise Unhealthy(f"{reason}; another server answers {where.url}/health")
        if expected.serves_anything:
            return
        try:
            self._prove(name, expected)
            self._prove_locked(name)
        except Unhealthy:
            raise
        except Exception as error:
            raise Unhealthy(f"{name} at {where.url} does not report what it serves: {_message(error)}") from error

    def _prove(self, name: str, expected: Expected) -> None:
        where = self._where(name)
        content = json.loads(self._ok(name, "/v1/models" if name == "vllm" else "/health"))
        if name == "vllm" and expected.model is not None:
            served = [str(model["id"]) for model in content["data"]]
            if expected.model not in served:
                raise Unhealthy(f"{where.url} serves {', '.join(served)}, not {expected.model}")
        if name == "whisper" and expected.device is not None:
            runs_on = content.get("device")
            if runs_on not in (None, expected.device):
                raise Unhealthy(f"whisper runs on {runs_on}, not on {expected.device}")

    def _prove_locked(self, name: str) -> None:
        """Raise Unhealthy if the service answers without the key. It would serve everybody who reaches the port."""
        method, path = _WORK[name]
        status, _ = get(self._where(name).url.rstrip("/") + path, method=method)
        if status not in _WANTS_KEY:
            wanted = self._where(name).key_env
            raise Unhealthy(f"{name} serves without a key ({path} answers with status {status}); it must be started with {wanted}")

    def page(self, name: str, path: str) -> str:
        """Return the service's answer at this path, asked with its key. Raise NoAnswer or Unhealthy."""
        return self._ok(name, path).decode(errors="replace")

    def _ok(self, name: str, path: str) -> bytes:
        status, body = self._get(name, path)
        if status in _WANTS_KEY:
            raise Unhealthy(f"{name} refuses the key in {self._where(name).key_env} ({path} answers with status {status})")
        if status != OK:
            raise Unhealthy(f"{name}: {path} answers with status {status}")
        return body

    def probe(self, expected: Expected, print_line: Callable[[str], None] = lambda _line: None) -> float | None:
        """Take live voice turns one after another, and return their median latency in ms without the first, or None without probes. Raise
        Unhealthy."""
        if not self._settings.probes:
            return None
        try:
            turns = asyncio.run(self._turns(expected.model or ""))
        except Exception as error:
            raise Unhealthy(f"a live voice turn cannot be taken: {_message(error)}") from error
        if failed := [turn.error for turn in turns if turn.error]:
            raise Unhealthy(f"{len(failed)} of {len(turns)} live voice turns failed ({failed[0]})")
        median = statistics.median(turn.voice_turn_ms or 0.0 for turn in turns[1:])
        print_line(f"  {len(turns) - 1} live voice turns: median {median:.0f} ms")
        if expected.turn_ms is not None and median > self._settings.probe_max_ratio * expected.turn_ms:
            raise Unhealthy(
                f"live voice turns take {median:.0f} ms (median), more than {self._settings.probe_max_ratio:g} times the {expected.turn_ms:.0f} ms "
                "of the comparison"
            )
        return median

    async def _turns(self, model: str) -> list[Turn]:
        vllm, whisper = self._settings.vllm, self._settings.whisper
        endpoints = {"vllm": Endpoint(vllm.url, self._key("vllm"), model), "whisper": Endpoint(whisper.url, self._key("whisper"))}
        traffic = Traffic(turn_stages(None, DEFAULT_PAIR), endpoints)
        turns = []
        async with client_session() as session:
            for number in range(self._settings.probes + 1):
                utterance = self._utterances[number % len(self._utterances)]
                turns.append(await take_turn(session, traffic, self._workload, utterance, due=time.monotonic()))
        return turns

    def _where(self, name: str) -> ServiceTarget:
        found: ServiceTarget = getattr(self._settings, name)
        return found

    def _get(self, name: str, path: str, deadline_s: float = DEADLINE_S) -> tuple[int, bytes]:
        return get(self._where(name).url.rstrip("/") + path, self._key(name), deadline_s)

    def _key(self, name: str) -> str:
        return key_of(self._settings, name) or ""


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
