"""Serve OpenAI's API for speech to text over HTTP.

`POST /v1/audio/transcriptions` and `/v1/audio/translations` (multipart), `GET /v1/models` and `/v1/models/<name>`. `GET /health` answers
once the model is loaded, with the service's name and its actual device. Every request carries the key (`Authorization: Bearer`). What this
service does not support is refused with status 400 and the field's name. Nothing is ignored.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from typing import Any

from aiohttp import web

from tune_gpu.services.decoding import MAX_BYTES, SAMPLE_RATE_HZ, NotAudio, TooLong
from tune_gpu.services.faster_whisper.answers import as_json, plain, usage
from tune_gpu.services.faster_whisper.asked import AnswerFormat, Asked, Refused, Task, read_form
from tune_gpu.services.faster_whisper.transcriber import Transcriber


def build_app(transcriber: Transcriber, description: dict[str, Any], api_key: str) -> web.Application:
    """Build the HTTP application.

    Args:
        transcriber: the model.
        description: what `/health` says; `name` is the model's name, `language` what is spoken where a request names none.
        api_key: what a request must carry.
    """
    service = _Api(transcriber, description)
    app = web.Application(middlewares=[_authorised(api_key), _refusals], client_max_size=MAX_BYTES)
    app.add_routes(
        [
            web.get("/health", service.health),
            web.get("/v1/models", service.models),
            web.get("/v1/models/{name:.+}", service.model),
            web.post("/v1/audio/transcriptions", service.transcriptions),
            web.post("/v1/audio/translations", service.translations),
        ]
    )
    return app


class _Api:
    """The answers to each address."""

    def __init__(self, transcriber: Transcriber, description: dict[str, Any]) -> None:
        self._transcriber, self._description = transcriber, description
        self._model = {"id": description["name"], "object": "model", "created": int(time.time()), "owned_by": "tune_gpu"}

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response(self._description)

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model]})

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name != self._model["id"]:
            raise Refused(f"model={name}: it is not served. Served is {self._model['id']}.", "model", 404)
        return web.json_response(self._model)

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, Task.TRANSCRIBE)

    async def translations(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, Task.TRANSLATE)

    async def _answer(self, request: web.Request, task: Task) -> web.StreamResponse:
        try:
            form = await request.post()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(f"the request is too large. Send at most {MAX_BYTES // 2**20} MiB.", "file", 413) from error
        except ValueError as error:
            raise Refused(f"the form cannot be read ({error}).") from error
        fields = {name: form.getall(name) for name in form}
        asked = read_form(
            task, fields, names=[self._description["name"]], languages=self._transcriber.languages, default_language=self._description["language"]
        )
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            raise Refused("file: the field is missing. Send the audio in it.", "file")
        try:
            samples = await self._transcriber.read(upload.file)
        except TooLong as error:
            raise Refused(f"file: the audio {error}. Send it in shorter pieces.", "file", 413) from error
        except NotAudio as error:
            raise Refused(f"file: {error}. Send a WAV file, for example.", "file") from error
        if asked.stream:
            return await self._stream(request, samples, asked)
        transcript = await self._transcriber.transcribe(samples, asked)
        if asked.format in (AnswerFormat.JSON, AnswerFormat.VERBOSE_JSON):
            return web.json_response(as_json(transcript, asked))
        kind = {AnswerFormat.SRT: "application/x-subrip", AnswerFormat.VTT: "text/vtt"}.get(asked.format, "text/plain")
        return web.Response(text=plain(transcript, asked.format), content_type=kind, charset="utf-8")

    async def _stream(self, request: web.Request, samples: Any, asked: Asked) -> web.StreamResponse:
        """Send each segment as a server-sent event, then the whole text."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await answer.prepare(request)
        whole = ""
        try:
            async for segment in self._transcriber.segments(samples, asked):
                text = segment.text.strip() if not whole else " " + segment.text.strip()
                whole += text
                await _send(answer, {"type": "transcript.text.delta", "delta": text})
            await _send(answer, {"type": "transcript.text.done", "text": whole, "usage": usage(len(samples) / SAMPLE_RATE_HZ)})
        except ConnectionResetError:  # the client has closed the connection, so nobody reads an answer
            return answer
        except Exception as error:  # the status has been sent: only an event can still say it
            logging.getLogger(__name__).exception("the transcription failed")
            await _send(answer, _error(f"the transcription failed ({error}).", "server_error", None))
        await answer.write_eof()
        return answer


async def _send(answer: web.StreamResponse, event: dict[str, Any]) -> None:
    await answer.write(f"data: {json.dumps(event)}\n\n".encode())


def _authorised(api_key: str) -> Any:
    @web.middleware
    async def authorise(request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            return web.json_response(_error("Authorization: the key is wrong or missing. Send it as Bearer.", "authentication_error", None), status=401)
        return await handler(request)

    return authorise


@web.middleware
async def _refusals(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return web.json_response(_error(str(error), "invalid_request_error", error.param), status=error.status)


def _error(message: str, kind: str, param: str | None) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}
