"""Live requests to the deployed services: turns of the space, and one request to each service by the client of its own protocol."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig, WorkloadSettings
from tune_gpu.promote.places import Place
from tune_gpu.promote.render import DeployedService
from tune_gpu.services.base import LaunchSite, Service
from tune_gpu.services.decoding import SAMPLE_RATE_HZ
from tune_gpu.services.loopback import DEADLINE_S
from tune_gpu.services.registry import services_of
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.audio import Utterance
from tune_gpu.workload.clients.call import Sample
from tune_gpu.workload.inputs import Inputs, load_inputs
from tune_gpu.workload.stages import Stage, stages_of
from tune_gpu.workload.traffic import Traffic
from tune_gpu.workload.turn import Turn, take_turn
from tune_gpu.workload.window import client_session

REFUSED = ("http_401", "http_403")
"""Errors of a request that a service refuses because of its key."""
NO_ANSWER = ("connection", "timeout")
"""Errors of a request that a service does not answer."""
_NOTHING_SAID = Utterance("nothing", np.zeros(SAMPLE_RATE_HZ // 5, dtype=np.float32), "Hello.")
"""A request of it need not be understood."""


@dataclass(frozen=True)
class Taken:
    """Live requests and their answers."""

    failed: tuple[str, ...]
    """What went wrong, for people; empty if all was answered."""
    median_ms: float
    """Of the turns without the first; NaN if there are none."""


@dataclass(frozen=True)
class LiveTurns:
    """Takes turns over the services of a space, those that are deployed and those that run already."""

    stages: tuple[Stage, ...]
    deployed: Sequence[DeployedService]
    running: Sequence[Service]
    """The services that are not deployed."""
    workload: WorkloadSettings
    inputs: Inputs
    port_range: Sequence[int]

    @classmethod
    def of(cls, config: ExperimentConfig, deployed: Sequence[DeployedService]) -> LiveTurns:
        """Return the live turns of a run. Raise UserError if its recordings or texts cannot be read."""
        names = [service.name for service in deployed]
        running = [service for service in services_of(config.services) if service.name not in names]
        every = [*stages_of(config), *(stage for service in deployed if (stage := _stage_of(service)) is not None)]
        inputs = load_inputs(config.workload, every, spoken_language(config))
        return cls(stages_of(config), deployed, running, config.workload, inputs, config.run.port_range)

    def take(self, n: int, key_of: Callable[[Place], str]) -> Taken:
        """Ask each service once that no turn passes, then take one turn more than `n`.

        Args:
            n: number of turns that count.
            key_of: returns the key of a deployed service.

        Raises:
            ServiceError: a service that runs already does not answer.
        """
        endpoints = {service.name: _endpoint(service, key_of(service.place)) for service in self.deployed}
        endpoints |= {service.name: self._running_endpoint(service) for service in self.running if self._passes(service.name)}
        return asyncio.run(self._take(n, endpoints))

    async def _take(self, n: int, endpoints: Mapping[str, Endpoint]) -> Taken:
        alone = [stage for service in self.deployed if not self._passes(service.name) and (stage := _stage_of(service)) is not None]
        traffic = Traffic(self.stages, endpoints, background=tuple(alone))
        first = self.inputs.of(self.stages, self.stages[0])
        failed, turns = [], []
        async with client_session() as session:
            for stage in alone:
                content = self.inputs.beside(stage)[0].content(stage.takes)
                sample = await traffic.ask(session, stage, content, self.workload, due=time.monotonic())
                failed += [f"{stage.service} does not answer a request ({sample.error})"] if sample.error else []
            for number in range(n + 1):
                turns.append(await take_turn(session, traffic, self.workload, first[number % len(first)], due=time.monotonic()))
        return Taken(tuple(failed) + _failed_turns(turns), statistics.median(turn.turn_ms or 0.0 for turn in turns[1:]))

    def _passes(self, service: str) -> bool:
        return any(stage.service == service for stage in self.stages)

    def _running_endpoint(self, service: Service) -> Endpoint:
        there = service.launch(LaunchSite(self.deployed[0].device if self.deployed else "cpu", self.port_range))
        there.start()
        return there.endpoint


def ask_without_key(service: DeployedService) -> str | None:
    """Send one request of the service's protocol without a key. Return its error, "" if it was answered, or None if no request can drive the
    service."""
    stage = _stage_of(service)
    return None if stage is None else asyncio.run(_ask(stage, _endpoint(service, ""))).error or ""


async def _ask(stage: Stage, endpoint: Endpoint) -> Sample:
    traffic = Traffic((stage,), {stage.service: endpoint})
    async with client_session() as session:
        workload = WorkloadSettings(max_tokens=1, request_timeout_s=DEADLINE_S)
        return await traffic.ask(session, stage, _NOTHING_SAID.content(stage.takes), workload, due=time.monotonic())


def _stage_of(service: DeployedService) -> Stage | None:
    """Return the service as the only stage of a turn, or None if no request can drive it."""
    return None if service.protocol is None else Stage(service.name, service.name, service.protocol)


def _endpoint(service: DeployedService, key: str) -> Endpoint:
    found = service.deployable
    return Endpoint(service.place.url, key, found.model, found.ignore_eos, found.voice)


def _failed_turns(turns: Sequence[Turn]) -> tuple[str, ...]:
    failed = [turn.error for turn in turns if turn.error]
    return (f"{len(failed)} of {len(turns)} live turns failed ({failed[0]})",) if failed else ()
