"""Use a server that runs already: prove that it answers, ask for its model, and leave it alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError
from tune_gpu.services.apis import NONE
from tune_gpu.services.external.settings import ExternalSettings
from tune_gpu.services.loopback import NoAnswer, get
from tune_gpu.services.running import Endpoint

_HEALTH_PATHS = ("/health", "/v1/models")
_ANSWER_S = 5.0


@dataclass(frozen=True)
class ExternalInfo:
    """Facts of a server that answers."""

    url: str
    model: str
    start_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as the artifacts have them."""
        return asdict(self)


class ExternalService:
    """A server of somebody else's. It has no processes of ours, and its memory is a neighbour's.

    Args:
        name: of the service, for failures.
        settings: of the candidate, checked.
    """

    def __init__(self, name: str, settings: ExternalSettings) -> None:
        self.settings = settings
        self.info: ExternalInfo | None = None
        self._name = name
        self._url = settings.url.rstrip("/")
        self._health: str | None = None
        self._lost: Failure | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Return where it answers. A model that only the server knows has no name before `start`."""
        return Endpoint(self._url, self._key(), self.settings.model or (self.info.model if self.info else ""), self.settings.ignore_eos)

    @property
    def start_s(self) -> float | None:
        """Return how long it took to prove that it answers, in seconds, or None before."""
        return self.info.start_s if self.info else None

    def start(self, abort: Callable[[], str | None] = lambda: None) -> ExternalInfo:
        """Prove that it answers, and ask for the name of its model if the settings do not have it.

        Raises:
            ServiceError: it does not answer, or `abort` returned a reason.
        """
        started = time.monotonic()
        if reason := abort():
            raise ServiceError(Failure(FailureKind.SERVICE_LOST, self._name, Phase.START, reason))
        try:
            self._health = self._answering_path()
            model = self.settings.model or ("" if self.settings.api == NONE else self._only_model())
        except UserError as error:
            raise ServiceError(Failure(FailureKind.STARTUP_CRASH, self._name, Phase.START, str(error))) from error
        self.info, self._lost = ExternalInfo(self._url, model, time.monotonic() - started), None
        return self.info

    def check(self) -> None:
        """Raise UserError if it cannot be used now."""
        self._answering_path()
        if self.settings.api != NONE and not self.settings.model:
            self._only_model()

    def _answering_path(self) -> str:
        """Return the path of its health check. Raise UserError if it does not answer, or refuses the key."""
        tried = []
        for path in [self.settings.health] if self.settings.health else _HEALTH_PATHS:
            try:
                status, _ = get(self._url + path, self._key(), _ANSWER_S)
            except NoAnswer as error:
                raise UserError(f"services.{self._name}.url={self._url}: does not answer ({error}). Start the server, or remove the service.") from error
            if 200 <= status < 300:
                return path
            if status in (401, 403):
                raise self._refused(path, status)
            tried.append(f"{path} with status {status}")
        raise UserError(f"services.{self._name}.url={self._url}: it answers {' and '.join(tried)}. Set services.{self._name}.health to a path with status 200.")

    def _only_model(self) -> str:
        """Return the name of the one model that it lists. Raise UserError if it lists none or several."""
        key = f"services.{self._name}.model"
        try:
            status, body = get(f"{self._url}/v1/models", self._key(), _ANSWER_S)
            if status in (401, 403):
                raise self._refused("/v1/models", status)
            names = list(_model_names(body)) if status == 200 else []
        except NoAnswer as error:
            raise UserError(f"{key}: {self._url} does not list its models ({error}). Set the name of the model.") from error
        if len(names) != 1:
            listed = f"lists the models {', '.join(names)}" if names else f"lists no models (/v1/models answers with status {status})"
            raise UserError(f"{key}: {self._url} {listed}. Set the name of the one that requests shall use.")
        return names[0]

    def _refused(self, path: str, status: int) -> UserError:
        variable = self.settings.key_env
        advice = f"Set {variable} to its key." if variable else f"Set services.{self._name}.key_env to the name of the variable that holds its key."
        return UserError(f"services.{self._name}.url={self._url}: refuses the request of {path} with status {status}. {advice}")

    def failure(self) -> Failure | None:
        """Return why it can no longer be measured, or None while it answers. Whether it does is known from its last health check."""
        if self.info is None:
            return Failure(FailureKind.SERVICE_LOST, self._name, Phase.LOAD, "it was not started")
        return self._lost

    def healthy(self, timeout_s: float) -> bool:
        """Return True if its health check answers with success within the time-out."""
        try:
            status, _ = get(self._url + (self._health or self.settings.health or _HEALTH_PATHS[0]), self._key(), timeout_s)
        except NoAnswer as error:
            if self.info is not None and isinstance(error.__cause__, ConnectionRefusedError):  # nobody listens: it has ended, and does not just hang
                self._lost = Failure(FailureKind.SERVICE_LOST, self._name, Phase.LOAD, f"it no longer answers at {self._url}", str(error))
            return False
        return 200 <= status < 300

    def gauges(self) -> dict[str, float]:
        """Return no reading: its metrics count the requests of others, too."""
        return {}

    def pids(self) -> list[int]:
        """Return no process: none of its processes is ours."""
        return []

    def log(self) -> str:
        """Return nothing: its output is not ours to read."""
        return ""

    def stop(self) -> None:
        """Leave it as it is."""
        self.info = None

    def _key(self) -> str:
        return os.environ.get(self.settings.key_env, "") if self.settings.key_env else ""


def _model_names(body: bytes) -> Iterator[str]:
    try:
        listed = json.loads(body)["data"]
        yield from (str(model["id"]) for model in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        return
