"""Serve faster-whisper over HTTP as a separate process, with OpenAI's API (see `api`). The key comes in the variable TUNE_GPU_API_KEY."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from aiohttp import web

from tune_gpu.services.faster_whisper.api import build_app
from tune_gpu.services.faster_whisper.transcriber import Transcriber, load_model


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the service's command line."""
    parser = argparse.ArgumentParser(prog="whisper_server", description="faster-whisper behind OpenAI's transcription API.")
    parser.add_argument("--config", help="YAML file of these flags; flags on the command line take precedence")
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True, help="name that /health reports")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--compute-type", default="default")
    parser.add_argument("--cpu-threads", type=int, default=1)
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--language", default="en")
    parser.add_argument("--vad-filter", action="store_true")
    parser.add_argument("--condition-on-previous-text", action="store_true")
    given, _ = _config_flag().parse_known_args(argv)
    return parser.parse_args([*_flags_of(given.config), *argv])


def _config_flag() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    return parser


def _flags_of(path: str | None) -> list[str]:
    if path is None:
        return []
    import yaml

    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file) or {}
    return [
        part for name, value in content.items() if value is not False for part in ([f"--{name}"] + ([] if value is True else [str(value)]))
    ]


def main(argv: list[str]) -> None:
    """Load the model, then serve until terminated."""
    arguments = parse_arguments(argv)
    key = os.environ.get("TUNE_GPU_API_KEY")
    if not key:
        sys.exit("TUNE_GPU_API_KEY: not set or empty, so that anybody could use the service. Set it to the service's key.")
    started = time.perf_counter()
    model = load_model(arguments)
    description = {
        "name": arguments.name,
        "pid": os.getpid(),
        "device": model.model.device,
        "compute_type": model.model.compute_type,
        "load_s": time.perf_counter() - started,
        "language": arguments.language,
        "settings": {name: value for name, value in vars(arguments).items() if name != "config"},
    }
    print(json.dumps(description), flush=True)
    app = build_app(Transcriber(model, arguments), description, key)
    web.run_app(app, host=arguments.host, port=arguments.port, print=None, access_log=None, handle_signals=True)


if __name__ == "__main__":
    main(sys.argv[1:])
