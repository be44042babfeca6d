"""The client of OpenAI's `/v1/embeddings`."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass

from tune_gpu.workload.clients.call import AnsweredAtOnce, Call, body_of, failure_as_value


@dataclass
class EmbeddingSample(AnsweredAtOnce):
    """One embedding. Times are of the monotonic clock, in seconds."""

    due: float
    done: float | None = None
    text: str = ""
    """What was embedded. The next stage of a turn gets it, as a request follows its retrieval."""
    size: int = 0
    """Numbers of the vector."""
    error: str | None = None


async def embed(call: Call, text: str) -> EmbeddingSample:
    """Embed one text. A vector that is empty, is not finite or has another size than the service's first one is `bad_payload`."""
    sample = EmbeddingSample(call.due, text=text)
    body = {"model": call.endpoint.model, "input": text, "encoding_format": "float", **call.extensions}
    url = call.url("/v1/embeddings")
    with failure_as_value(sample, cut_off="connection"), call.pulse.request(call.service):
        async with asyncio.timeout(call.left_s), call.session.post(url, json=body, headers=call.headers, allow_redirects=False) as reply:
            if reply.status != 200:
                call.mark()
                sample.error = f"http_{reply.status}"
                return sample
            answer = await body_of(reply)
            call.mark()
            at = time.monotonic()
            sample.size = _size_of(json.loads(answer)["data"][0]["embedding"])
            if sample.size != call.vector_sizes.setdefault(call.service, sample.size):
                raise ValueError("a vector of another size")
            sample.done = at
    return sample


def _size_of(vector: object) -> int:
    """Return how many numbers a vector has. Raise ValueError if it is empty or not finite."""
    if not isinstance(vector, list) or not vector:
        raise ValueError("no vector")
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number) for number in vector):
        raise ValueError("a vector that is not of finite numbers")
    return len(vector)
