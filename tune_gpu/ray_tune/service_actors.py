"""Services as processes of Ray actors that hold the trial's card, in the second bundle of the trial's placement group.

Each service has an actor that holds its part of the card (see `placement`). An actor starts and watches the real service in the environment that Ray
gave it, so that CUDA_VISIBLE_DEVICES reaches the service's worker processes; the trial holds a proxy (`RemoteService`). Both run on one
node and end with the trial: Ray ends an actor that loses its owner, and the guard ends a service that loses its actor.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.config.kinds import load_kind
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.ray_tune.placement import TrialResources
from tune_gpu.services.base import LaunchSite, Service
from tune_gpu.services.running import Endpoint, RunningService

VISIBLE = "CUDA_VISIBLE_DEVICES"
_SERVICES_BUNDLE = 1
_WATCH_EVERY_S = 0.1
_ANSWER_S = 30.0
_PLACED_S = 120.0


@dataclass(frozen=True)
class Place:
    """Node and card of an actor of ours."""

    node: str
    visible: str
    pid: int


def _place() -> Place:
    return Place(ray.get_runtime_context().get_node_id(), os.environ.get(VISIBLE, ""), os.getpid())


class ServiceActor:
    """Runs one service in its process. Answers are (value, failure): Ray would change the type of an exception."""

    def __init__(self, name: str, kind: str, settings: Any, site: LaunchSite, env: dict[str, str]) -> None:
        os.environ.update(env)
        self._service: RunningService[Any] = load_kind(kind).launch(name, settings, site)
        self._abort: str | None = None

    def place(self) -> Place:
        """Return its node and card, from the environment that Ray has set."""
        return _place()

    def endpoint(self) -> Endpoint:
        """Return where the service will answer."""
        return self._service.endpoint

    def start(self) -> tuple[Any, float | None, Failure | None]:
        """Start the service, wait until it is ready, and return its info and the seconds that its start took, or the failure."""
        try:
            return self._service.start(abort=lambda: self._abort), self._service.start_s, None
        except ServiceError as error:
            return None, None, error.failure

    def give_up(self, reason: str) -> None:
        """End a start that is under way."""
        self._abort = reason

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call `failure`, `pids`, `log`, `healthy` or `gauges` of the service."""
        return getattr(self._service, method)(*arguments)

    def stop(self) -> None:
        """End the service."""
        self._abort = self._abort or "it was stopped"
        self._service.stop()


class RemoteService:
    """A `RunningService` whose process belongs to an actor.

    Args:
        actor: a handle of `ServiceActor`.
        name: of the service.
    """

    def __init__(self, actor: Any, name: str) -> None:
        self._actor, self._name = actor, name
        self.endpoint: Endpoint = self._get(actor.endpoint.remote())
        self.info: Any = None
        self.start_s: float | None = None
        self._found: Failure | None = None
        self._watching = threading.Event()

    def start(self, abort: Callable[[], str | None] = lambda: None) -> Any:
        """Start the service. Raise ServiceError with nothing left running: a leftover actor would hold the card that the next engine needs."""
        try:
            self.info, self.start_s = self._started(abort)
            self.endpoint = self._get(self._actor.endpoint.remote())  # a service that runs already may name its model only now
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._watch, name=f"tune-gpu-{self._name}-watch", daemon=True).start()
        return self.info

    @property
    def stopped(self) -> bool:
        """Return whether its actor has been ended."""
        return self._actor is None

    def _started(self, abort: Callable[[], str | None]) -> tuple[Any, float | None]:
        pending = self._actor.start.remote()
        while not ray.wait([pending], timeout=_WATCH_EVERY_S)[0]:
            if reason := abort():
                self._actor.give_up.remote(reason)
        info, start_s, failure = self._get(pending)
        if failure is not None:
            raise ServiceError(failure)
        return info, start_s

    def _watch(self) -> None:
        """Poll the actor from its own thread: the load generator must not wait for an actor."""
        actor = self._actor
        while not self._watching.wait(_WATCH_EVERY_S) and self._found is None:
            try:
                found = self._get(actor.ask.remote("failure"))
                self._found = None if self._watching.is_set() else found  # a service that is being stopped has not failed
            except ServiceError as error:
                self._found = error.failure

    def failure(self) -> Failure | None:
        return self._found

    def pids(self) -> list[int]:
        return list(self._ask("pids", default=[]))

    def log(self) -> str:
        return str(self._ask("log", default=""))

    def healthy(self, timeout_s: float) -> bool:
        return bool(self._ask("healthy", timeout_s, default=False))

    def gauges(self) -> dict[str, float]:
        return dict(self._ask("gauges", default={}))

    def stop(self) -> None:
        """Stop the service, then the actor, which frees its part of the card."""
        self._watching.set()
        if self._actor is None:
            return
        with contextlib.suppress(RayError):
            ray.get(self._actor.stop.remote(), timeout=_ANSWER_S)
        ray.kill(self._actor)
        self._actor = None

    def _ask(self, method: str, *arguments: Any, default: Any) -> Any:
        if self._actor is None:
            return default
        try:
            return self._get(self._actor.ask.remote(method, *arguments))
        except ServiceError:
            return default  # `failure` reports that it has ended

    def _get(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=_PLACED_S)
        except RayActorError as error:
            message = f"the Ray actor of {self._name} has ended: {str(error).splitlines()[0]}"
            raise ServiceError(Failure(FailureKind.SERVICE_LOST, self._name, Phase.LOAD, message)) from error
        except GetTimeoutError as error:
            message = f"the Ray actor of {self._name} has not answered for {_PLACED_S:g} s"
            raise ServiceError(Failure(FailureKind.SERVICE_LOST, self._name, Phase.LOAD, message)) from error


class PlacementGroupDeployer:
    """Makes services as actors in the second bundle of the trial's placement group.

    Args:
        resources: of the candidate that runs now -> its parts of the bundle.
        trial_name: the actors are called `<service>-<trial>`.
        group: the trial's own by default.
    """

    def __init__(
        self, config: ExperimentConfig, device: str, resources: TrialResources, trial_name: Callable[[], str], group: PlacementGroup | None = None
    ) -> None:
        self._config, self._device, self.resources, self._trial_name = config, device, resources, trial_name
        mine = group or ray.util.get_current_placement_group()
        assert mine is not None, "a trial on a card has a placement group"
        self._group = mine
        self._card: Place | None = None
        self._made: list[RemoteService] = []

    def visible_devices(self) -> str:
        """Return the cards that Ray has assigned to the bundle. They are looked up once: they do not change while the group exists."""
        if self._card is None:
            assert self.resources.services is not None
            look: Any = ray.remote(_place).options(**self._options(self.resources.services["GPU"], 0.0))
            self._card = ray.get(look.remote(), timeout=_PLACED_S)
        return self._card.visible

    def prepare(self, services: Sequence[Service]) -> None:
        """Do nothing: services are forked from a process of their trial on the CPU only."""

    def wait_prepared(self) -> None:
        """Return at once."""

    def make(self, service: Service) -> RemoteService:
        """Return a service in an actor of its own. Raise ServiceError if Ray puts it elsewhere than the trial."""
        visible = self.visible_devices()
        gpus = self.resources.gpus.get(service.name, 0.0)
        # Ray assigns no card to an actor without a part of one: beside a service on several cards, the others are put on the first ones.
        env = {} if gpus else {VISIBLE: ",".join(visible.split(",")[: service.gpus.cards])}
        options = self._options(gpus, self.resources.cpus_per_service) | {"max_concurrency": 8}
        site = LaunchSite(self._device, list(self._config.run.port_range))
        arguments = (service.name, service.kind.name, service.settings, site, env)
        name = f"{service.name}-{self._trial_name()}"
        try:
            actor: Any = ray.remote(ServiceActor).options(name=name, **options).remote(*arguments)
        except ValueError:  # an actor that is ending still has the name
            actor = ray.remote(ServiceActor).options(name=f"{name}-{uuid.uuid4().hex[:4]}", **options).remote(*arguments)
        made = RemoteService(actor, service.name)
        self._made = [*(one for one in self._made if not one.stopped), made]
        try:
            if service.gpus.cards:
                self._check_place(service.name, ray.get(actor.place.remote(), timeout=_ANSWER_S))
        except BaseException:
            made.stop()
            raise
        return made

    def close(self) -> None:
        for service in self._made:
            service.stop()
        self._made = []

    def _options(self, gpus: float, cpus: float) -> dict[str, Any]:
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=_SERVICES_BUNDLE)
        return {"num_gpus": gpus, "num_cpus": cpus, "scheduling_strategy": strategy}

    def _check_place(self, name: str, place: Place) -> None:
        """Raise ServiceError unless the service is on the trial's node and card, by Ray's report. NVML proves it once it holds memory."""
        assert self._card is not None
        here = ray.get_runtime_context().get_node_id()
        if place.node != here or place.visible.split(",")[0] != self._card.visible.split(",")[0]:
            message = f"Ray put it on card {place.visible!r} of node {place.node[:8]}, the trial is on card {self._card.visible!r} of node {here[:8]}"
            raise ServiceError(Failure(FailureKind.WRONG_DEVICE, name, Phase.START, message))
