"""Whether what was deployed serves: `/health` of both within a deadline, only with the key, and live voice turns that are fast enough.

Whatever goes wrong with a question is an answer that falls short (`Unhealthy`): any program may listen on a port.
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
"""What only a holder of the key may ask; vLLM's `/health` is open, and so may be that of another Whisper than ours."""


class Unhealthy(RuntimeError):
    """What was deployed falls short."""


@dataclass(frozen=True)
class Expected:
    """What the deployed services must show."""

    model: str | None
    """The name under which vLLM serves, or None if any will do (after a rollback)."""
    device: str | None
    turn_ms: float | None
    """The median that the comparison measured, in ms, or None if no latency is asked for."""

    @property
    def serves_anything(self) -> bool:
        """Return whether nothing is known of it, as after a rollback."""
        return self.model is None and self.device is None


class Watcher:
    """Ask the deployed services.

    Args:
        settings: where they are, and how long they may take.
        workload: what a live turn is.
        utterances: the recordings of its turns.
    """

    def __init__(self, settings: PromoteSettings, workload: WorkloadSettings, utterances: Sequence[Utterance]) -> None:
        self._settings, self._workload, self._utterances = settings, workload, utterances

    @property
    def deadline_s(self) -> float:
        """Return how long a service may take to answer after its start."""
        return self._settings.health_deadline_s

    def is_healthy(self, name: str) -> bool:
        """Return whether it answers `/health` now; one that wants another key does, too."""
        try:
            status, _ = self._get(name, "/health", deadline_s=2.0)
        except NoAnswer:
            return False
        return status == OK or status in _WANTS_KEY

    def wait(self, name: str, target: Target, expected: Expected, deadline: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until it answers and is what was deployed.

        Raise Unhealthy at the deadline (monotonic clock), as soon as it has failed, or once it is given up.
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
            raise Unhealthy(f"{reason}; what answers {where.url}/health is another server")
        if expected.serves_anything:
            return
        try:
            self._prove(name, expected)
            self._prove_locked(name)
        except Unhealthy:
            raise
        except Exception as error:
            raise Unhealthy(f"{name} at {where.url} does not say what it serves: {_message(error)}") from error

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
        """Raise Unhealthy if the service answers without the key: it would serve whoever reaches the port."""
        method, path = _WORK[name]
        status, _ = get(self._where(name).url.rstrip("/") + path, method=method)
        if status not in _WANTS_KEY:
            wanted = self._where(name).key_env
            raise Unhealthy(f"{name} serves without a key ({path} answers with status {status}); it must be started with {wanted}")

    def page(self, name: str, path: str) -> str:
        """Return what it answers there, with its key. Raise NoAnswer or Unhealthy."""
        return self._ok(name, path).decode(errors="replace")

    def _ok(self, name: str, path: str) -> bytes:
        status, body = self._get(name, path)
        if status in _WANTS_KEY:
            raise Unhealthy(f"{name} refuses the key in {self._where(name).key_env} ({path} answers with status {status})")
        if status != OK:
            raise Unhealthy(f"{name}: {path} answers with status {status}")
        return body

    def probe(self, expected: Expected, print_line: Callable[[str], None] = lambda _line: None) -> float | None:
        """Take live voice turns, one after another; return their median in ms without the first, or None without probes. Raise
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
