"""A small server that speaks what vLLM and Whisper speak, started by a target as they are: `little_server.py --config FILE`.

It asks for the key in its environment as the real ones do: vLLM under `/v1` only, Whisper everywhere; without one it serves everybody.
What goes wrong with it is in its configuration: `little-delay-s` (an answer takes so long), `little-exit` (it ends at once),
`little-open` (it asks for no key), `little-says` (every answer is these bytes).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


def handler(config: dict[str, Any]) -> type[BaseHTTPRequestHandler]:
    is_vllm = "served-model-name" in config
    key = "" if config.get("little-open") else os.environ.get("VLLM_API_KEY" if is_vllm else "TUNE_GPU_API_KEY", "")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Silent."""

        def refused(self) -> bool:
            if says := config.get("little-says"):
                self.wfile.write(str(says).encode("latin-1"))
                self.close_connection = True
                return True
            if not key or (is_vllm and not self.path.startswith("/v1")) or self.headers["Authorization"] == f"Bearer {key}":
                return False
            self.answer(b"{}", status=401)
            return True

        def answer(self, body: bytes, kind: str = "application/json", status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.refused():
                return
            if self.path == "/v1/models":
                self.answer(json.dumps({"data": [{"id": config["served-model-name"], "config": config}]}).encode())
            else:
                self.answer(json.dumps({"name": config.get("name"), "device": "cpu", "config": config}).encode())

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.refused():
                return
            time.sleep(float(config.get("little-delay-s", 0.0)))
            if self.path == "/v1/audio/transcriptions":
                self.answer(json.dumps({"text": "hello", "compute_s": 0.01}).encode())
            else:
                chunk = json.dumps({"choices": [{"text": "x"}], "usage": {"completion_tokens": json.loads(asked)["max_tokens"]}})
                self.answer(f"data: {chunk}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    with open(parser.parse_args().config) as file:
        config = yaml.safe_load(file)
    if config.get("little-exit"):
        sys.exit("RuntimeError: no room on the device")
    ThreadingHTTPServer((config["host"], config["port"]), handler(config)).serve_forever()
