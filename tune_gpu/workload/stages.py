"""The stages of a turn: which services a request passes, in what order, and what each of them takes and answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Protocol
from tune_gpu.config.measure_settings import WorkloadSettings
from tune_gpu.config.rules import nearest
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import protocols_of
from tune_gpu.metrics import DEFAULT_PAIR, GENERATION, label_of

Services = Mapping[str, Protocol | None]
"""Name -> protocol of each service of a space; None for a service without an API that a client drives."""


class Medium(StrEnum):
    """What a service takes or answers."""

    TEXT = "text"
    AUDIO = "audio"


_MEDIA = {
    Protocol.TRANSCRIPTION: (Medium.AUDIO, Medium.TEXT),
    Protocol.CHAT: (Medium.TEXT, Medium.TEXT),
    Protocol.COMPLETION: (Medium.TEXT, Medium.TEXT),
    Protocol.SPEECH: (Medium.TEXT, Medium.AUDIO),
    Protocol.EMBEDDING: (Medium.TEXT, Medium.TEXT),
}
"""Protocol -> what it takes, and what the next stage gets."""


@dataclass(frozen=True)
class Stage:
    """One service of a turn."""

    service: str
    label: str
    """Its name in turns, errors and metrics."""
    protocol: Protocol

    @property
    def takes(self) -> Medium:
        """Return what its requests carry."""
        return _MEDIA[self.protocol][0]

    @property
    def gives(self) -> Medium:
        """Return what the next stage gets from it."""
        return _MEDIA[self.protocol][1]

    @property
    def generates(self) -> bool:
        """Return whether it is an LLM that answers with text."""
        return self.protocol in GENERATION


def stages_of(config: ExperimentConfig) -> tuple[Stage, ...]:
    """Return the stages of a turn of this space.

    Raises:
        UserError: the turn names a service that does not exist or has no API, or one that cannot take what the service before it answers.
    """
    return turn_stages(config.workload.turn, protocols_of(config.services))


def background_of(config: ExperimentConfig) -> tuple[Stage, ...]:
    """Return the services that get requests besides those of turns. Raise UserError for one that does not exist or has no API."""
    return background_stages(config.workload, protocols_of(config.services), stages_of(config))


def turn_stages(turn: Sequence[str] | None, services: Services) -> tuple[Stage, ...]:
    """Return the stages of a turn over these services. Raise UserError as `stages_of` does.

    Args:
        turn: names of services in order; None for the default pair's turn, or the one service with an API.
        services: of the space.
    """
    if turn is None:
        turn = _only_turn(services)
    key = f"workload.turn=[{', '.join(turn)}]"
    if not turn:
        raise UserError(f"{key}: no service. Name at least one.")
    if twice := next((name for at, name in enumerate(turn) if name in turn[:at]), None):
        raise UserError(f"{key}: {twice} is named twice. A service can be one stage of a turn.")
    stages = tuple(_stage(key, name, services) for name in turn)
    for before, after in itertools.pairwise(stages):
        if before.gives is not after.takes:
            raise UserError(
                f"{key}: {after.service} ({after.protocol}) takes {after.takes}, but {before.service} ({before.protocol}) before it answers with {before.gives}. "
                "Change the order, or leave one out."
            )
    return stages


def _only_turn(services: Services) -> list[str]:
    driven = [name for name, protocol in services.items() if protocol is not None]
    if services == DEFAULT_PAIR:
        return list(DEFAULT_PAIR)
    if not driven:
        raise UserError("workload.turn: no service has an API that could be driven, so nothing can be measured. Add a service that has one.")
    if len(driven) > 1:
        raise UserError(f"workload.turn: not given, and {len(driven)} services could be driven. Set the order of a turn, for example [{', '.join(driven)}].")
    return driven


def background_stages(workload: WorkloadSettings, services: Services, turn: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the services with background requests, each as a stage. Raise UserError as `background_of` does.

    Args:
        workload: the settings of the traffic.
        services: of the space.
        turn: the stages of its turns.
    """
    found = tuple(_stage("workload.background", name, services) for name, rate in workload.background.items() if rate > 0)
    if workload.background_rate_per_s > 0:
        key = f"workload.background_rate_per_s={workload.background_rate_per_s:g}"
        answering = [stage for stage in turn if stage.generates]
        if len(answering) != 1:
            raise UserError(f"{key}: a turn has {len(answering)} LLMs, so it is not known which service gets these requests. Set it to 0, and name a service in workload.background.")
        if answering[0].service in workload.background:
            raise UserError(f"{key}: workload.background.{answering[0].service} gives the same rate. Remove one of them.")
        found = (answering[0], *found)
    return found


def _stage(key: str, name: str, services: Services) -> Stage:
    if name not in services:
        raise UserError(f"{key}: no service {name}{nearest(name, services)}. Use one of {', '.join(services)}.")
    protocol = services[name]
    if protocol is None:
        raise UserError(f"{key}: {name} has no API that could be driven. Leave it out.")
    return Stage(name, label_of(name, services), protocol)
