"""A small server that speaks what vLLM and Whisper speak, started by a target as they are: `little_server.py --config FILE`.

What goes wrong with it is in its configuration: `little-delay-s` (an answer takes so long), `little-exit` (it ends at once).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


def handler(config: dict[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Silent."""

        def answer(self, body: bytes, kind: str = "application/json") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self.answer(json.dumps({"data": [{"id": config["served-model-name"]}]}).encode())
            else:
                self.answer(json.dumps({"name": config.get("name"), "device": "cpu"}).encode())

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
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
