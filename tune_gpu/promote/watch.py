"""Whether what was deployed serves: `/health` of both within a deadline, then live voice turns that are fast enough."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tune_gpu.config import PromoteSettings, ServiceTarget, WorkloadSettings
from tune_gpu.promote.target import Target
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.clients import Endpoints
from tune_gpu.workload.voice_turn import TurnSample, take_turn
from tune_gpu.workload.window import client_session

_POLL_S = 0.2


class Unhealthy(RuntimeError):
    """What was deployed falls short."""


@dataclass(frozen=True)
class Expected:
    """What the deployed services must show."""

    model: str | None
    """The name under which vLLM serves; null if any will do (after a rollback)."""
    device: str | None
    turn_ms: float | None
    """The median that the comparison measured; null if no latency is asked for."""


class Watcher:
    """Asks the deployed services.

    Args:
        settings: where they are, and how long they may take.
        workload: what a live turn is.
        utterances: what is said in it.
    """

    def __init__(self, settings: PromoteSettings, workload: WorkloadSettings, utterances: Sequence[Utterance]) -> None:
        self._settings, self._workload, self._utterances = settings, workload, utterances

    def is_healthy(self, name: str) -> bool:
        """Whether it answers `/health` now."""
        try:
            self._get(self._where(name), "/health", timeout_s=2.0)
        except (OSError, ValueError):
            return False
        return True

    def wait(self, name: str, target: Target, expected: Expected, deadline: float) -> None:
        """Until it answers and is what was deployed; at the deadline (monotonic clock) or as soon as it has failed: Unhealthy."""
        where = self._where(name)
        while not self.is_healthy(name):
            if reason := target.failure(where.unit):
                raise Unhealthy(reason)
            if time.monotonic() > deadline:
                raise Unhealthy(f"{name} does not answer {where.url}/health {self._settings.health_deadline_s:g} s after the restart")
            time.sleep(_POLL_S)
        if reason := target.failure(where.unit):
            raise Unhealthy(f"{reason}; what answers {where.url}/health is another server")
        self._prove(name, expected)

    def _prove(self, name: str, expected: Expected) -> None:
        where = self._where(name)
        try:
            if name == "vllm" and expected.model is not None:
                served = [str(model["id"]) for model in json.loads(self._get(where, "/v1/models"))["data"]]
                if expected.model not in served:
                    raise Unhealthy(f"{where.url} serves {', '.join(served)}, not {expected.model}")
            if name == "whisper" and expected.device is not None:
                runs_on = json.loads(self._get(where, "/health")).get("device")
                if runs_on not in (None, expected.device):
                    raise Unhealthy(f"whisper runs on {runs_on}, not on {expected.device}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unhealthy(f"{name} at {where.url} does not say what it serves: {error}") from error

    def probe(self, expected: Expected, said: Callable[[str], None] = lambda _line: None) -> float | None:
        """Live turns, one after another (the first warms up and is not counted); their median in ms. Raises Unhealthy."""
        if not self._settings.probes:
            return None
        turns = asyncio.run(self._turns(expected.model or ""))
        if failed := [turn.error for turn in turns if turn.error]:
            raise Unhealthy(f"{len(failed)} of {len(turns)} live voice turns failed ({failed[0]})")
        median = statistics.median(turn.voice_turn_ms or 0.0 for turn in turns[1:])
        said(f"  {len(turns) - 1} live voice turns: median {median:.0f} ms")
        if expected.turn_ms is not None and median > self._settings.probe_max_ratio * expected.turn_ms:
            raise Unhealthy(
                f"live voice turns take {median:.0f} ms (median), the comparison measured {expected.turn_ms:.0f} ms; "
                f"allowed is {self._settings.probe_max_ratio:g} times as long"
            )
        return median

    async def _turns(self, model: str) -> list[TurnSample]:
        vllm, whisper = self._settings.vllm, self._settings.whisper
        endpoints = Endpoints(vllm.url, model, _key(vllm), whisper.url, _key(whisper))
        turns = []
        async with client_session() as session:
            for number in range(self._settings.probes + 1):
                turns.append(
                    await take_turn(
                        session,
                        endpoints,
                        self._utterances[number % len(self._utterances)],
                        due=time.monotonic(),
                        max_tokens=self._workload.max_tokens,
                        timeout_s=self._workload.request_timeout_s,
                    )
                )
        return turns

    def _where(self, name: str) -> ServiceTarget:
        found: ServiceTarget = getattr(self._settings, name)
        return found

    def _get(self, where: ServiceTarget, path: str, timeout_s: float = 10.0) -> str:
        request = urllib.request.Request(where.url + path, headers={"Authorization": f"Bearer {_key(where)}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
            return str(reply.read().decode())


def _key(where: ServiceTarget) -> str:
    return os.environ.get(where.key_env, "")
