"""A server for tests that speaks OpenAI's chat API and answers after a given delay. It needs only the standard library, and is up at once.

`python fake_server.py PORT LATENCY_MS` sends a word every LATENCY_MS milliseconds. FAKE_API_KEY is the key that a request must carry, if it is set.
FAKE_KV_CACHE is the share of its cache that it reports as in use, from 0 to 1, at `/metrics`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "fake"


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    def do_GET(self) -> None:
        """Answer the health check, list the one model, and report the use of a cache that is not there."""
        if self.path == "/metrics" and KV_CACHE:
            self._head(200, "text/plain")
            self.wfile.write(f'vllm:kv_cache_usage_perc{{model_name="{MODEL}"}} {KV_CACHE}\n'.encode())
            return
        listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self._answer(200 if self.path in ("/health", "/v1/models") else 404, listed)

    def do_POST(self) -> None:
        """Answer a chat with as many words as it may have, streamed if that is wanted."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or not asked.get("messages"):
            self._answer(404, {})
            return
        n_words = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 8)
        usage = {"prompt_tokens": 1, "completion_tokens": n_words, "total_tokens": 1 + n_words}
        if not self._has_key:
            self._answer(401, {})
            return
        if not asked.get("stream"):
            time.sleep(n_words * LATENCY_S)
            self._answer(200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * n_words}}], "usage": usage})
            return
        self._head(200, "text/event-stream")
        for number in range(n_words):
            time.sleep(LATENCY_S)
            end = "length" if number == n_words - 1 else None
            self._event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": end}]})
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    @property
    def _has_key(self) -> bool:
        """Return whether the request carries the key, if one is set."""
        return not KEY or self.headers["Authorization"] == f"Bearer {KEY}"

    def _event(self, content: object) -> None:
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())

    def _answer(self, status: int, content: object) -> None:
        self._head(status if self._has_key else 401, "application/json")
        self.wfile.write(json.dumps(content).encode())

    def _head(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


if __name__ == "__main__":
    PORT, LATENCY_S = int(sys.argv[1]), float(sys.argv[2]) / 1e3
    KEY, KV_CACHE = os.environ.get("FAKE_API_KEY"), os.environ.get("FAKE_KV_CACHE")
    print(f"listening on port {PORT}", flush=True)
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
