"""A small real server process that speaks what vLLM and Whisper speak, as badly as it is told to: standard library alone, up in a moment.

    python -S tiny_service.py PORT NAME KEY_VARIABLE BEHAVIOUR

It stands where the fault is in what a service *says*, which the real ones cannot be made to say; and where a thousand starts are wanted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, NAME, KEY, BEHAVIOUR = int(sys.argv[1]), sys.argv[2], os.environ[sys.argv[3]], sys.argv[4]
METRICS = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="64",kv_cache_max_concurrency="1.0"} 1.0\n'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answers = {
            "/health": json.dumps({"name": NAME, "device": "cpu"}),
            "/v1/models": json.dumps({"data": [{"id": NAME}]}),
            "/metrics": "\x00\xff{{{" if BEHAVIOUR == "bad_metrics" else METRICS,
            "/version": "[]" if BEHAVIOUR == "bad_version" else json.dumps({"version": "tiny"}),
        }
        self._send(200, answers[self.path].encode("latin-1"))

    def do_POST(self) -> None:
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self._chunks()
        if "transcriptions" in self.path:
            texts = {
                "http_500": (500, b"{}"),
                "empty_transcript": (200, b'{"text": ""}'),
                "nan": (200, b'{"text": "well", "compute_s": NaN}'),
                "not_text": (200, b'{"text": null}'),
                "not_json": (200, b"\xff\xfe<html>"),
                "deep": (200, b"[" * 100_000),
            }
            self._send(*texts.get(BEHAVIOUR, (200, b'{"text": "well then", "compute_s": 0.001}')))
            return
        self._stream(int(json.loads(body)["max_tokens"]))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _stream(self, tokens: int) -> None:
        if BEHAVIOUR == "llm_http_500":
            self._send(500, b"{}")
            return
        if BEHAVIOUR == "slow_answer":
            time.sleep(0.5)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        n_sent = {"llm_empty_stream": 0, "llm_half_stream": tokens // 2}.get(BEHAVIOUR, tokens)
        for _ in range(n_sent):
            self.wfile.write(b'data: {"choices": [{"text": "x"}]}\n\n')
        if BEHAVIOUR == "llm_half_stream":
            return
        amount = {"llm_nan": "NaN", "llm_infinite": "Infinity"}.get(BEHAVIOUR, str(n_sent))
        self.wfile.write(f'data: {{"choices": [], "usage": {{"completion_tokens": {amount}}}}}\n\ndata: [DONE]\n\n'.encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    if BEHAVIOUR == "slow_start":
        time.sleep(3600)
    if BEHAVIOUR == "crash":
        sys.exit("no voice named heart")
    if BEHAVIOUR == "out_of_memory":
        sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
    if BEHAVIOUR == "greedy":
        time.sleep(0.5)
        taken = b"x" * 2**28
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()
