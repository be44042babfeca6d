"""Where requests go, and how one is sent."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from tune_gpu.common.metric import Protocol
from tune_gpu.config.schema import ExperimentConfig, WorkloadSettings
from tune_gpu.services.pulse import ActivityTracker
from tune_gpu.services.running import Endpoint
from tune_gpu.workload.clients.call import Call, Content, Sample
from tune_gpu.workload.clients.chat import Chat, chat
from tune_gpu.workload.clients.completion import complete
from tune_gpu.workload.clients.embedding import embed
from tune_gpu.workload.clients.hangup import Hangup
from tune_gpu.workload.clients.speech import speak
from tune_gpu.workload.clients.transcription import transcribe
from tune_gpu.workload.stages import Stage, background_of, stages_of

_CLIENTS: Mapping[Protocol, Callable[[Call, Any], Awaitable[Sample]]] = {
    Protocol.CHAT: chat,
    Protocol.COMPLETION: complete,
    Protocol.EMBEDDING: embed,
    Protocol.SPEECH: speak,
    Protocol.TRANSCRIPTION: transcribe,
}


@dataclass(frozen=True)
class Traffic:
    """The services under test, and what tracks their activity."""

    stages: tuple[Stage, ...]
    """Of a turn."""
    endpoints: Mapping[str, Endpoint]
    """Service -> where it answers."""
    pulse: ActivityTracker = field(default_factory=ActivityTracker, compare=False)
    """Keyed by the names of the services."""
    cache_salt: str | None = None
    background: tuple[Stage, ...] = ()
    """Services that get requests besides those of turns."""
    vector_sizes: dict[str, int] = field(default_factory=dict, compare=False)
    """Service -> size of its embeddings, known from the first one on."""

    @classmethod
    def of(cls, config: ExperimentConfig, endpoints: Mapping[str, Endpoint], pulse: ActivityTracker) -> Traffic:
        """Return the traffic of a space on services that run. Raise UserError as `stages_of` does."""
        return cls(stages_of(config), endpoints, pulse, background=background_of(config))

    def with_cold_cache(self) -> Traffic:
        """Return the same traffic with a new cache salt, so that a stretch of load finds nothing of earlier ones in the prefix cache.

        All candidates get the same prompts. With a shared cache they would cost less on an engine that is reused than on a new one, and
        less in a window that is measured again than in the first.
        """
        return replace(self, cache_salt=uuid.uuid4().hex)

    def drives(self, service: str) -> bool:
        """Return whether a service gets any requests."""
        return any(stage.service == service for stage in (*self.stages, *self.background))

    def stage(self, service: str) -> Stage:
        """Return the stage of a service. Raise KeyError if it gets no requests."""
        found = next((stage for stage in (*self.stages, *self.background) if stage.service == service), None)
        if found is None:
            raise KeyError(service)
        return found

    def chain(self, only: str | None) -> tuple[Stage, ...]:
        """Return the stages of a turn, or the one stage of a service alone."""
        return self.stages if only is None else (self.stage(only),)

    async def ask(
        self,
        session: aiohttp.ClientSession,
        stage: Stage,
        content: Content | Chat,
        workload: WorkloadSettings,
        *,
        due: float,
        hangup: Hangup | None = None,
        on_text: Callable[[str], None] | None = None,
        on_first: Callable[[float], None] | None = None,
    ) -> Sample:
        """Send one request that was due at `due` (monotonic clock, seconds), and return its answer.

        Args:
            session: of the client.
            stage: the service.
            content: what it gets; a conversation goes to the chats of an LLM, whatever its requests are otherwise.
            workload: length and time-out.
            due: when it was due.
            hangup: ends the request early.
            on_text: receives each part of an LLM's answer as it arrives.
            on_first: receives the time of the first audio as it arrives.
        """
        endpoint = self.endpoints[stage.service]
        call = Call(
            session,
            endpoint,
            due,
            workload.request_timeout_s,
            stage.service,
            self.pulse,
            self.cache_salt,
            workload.max_tokens,
            endpoint.voice or workload.voice,
            self.vector_sizes,
            hangup,
            on_text,
            on_first,
        )
        protocol = Protocol.CHAT if isinstance(content, Chat) else stage.protocol
        return await _CLIENTS[protocol](call, content)
