"""A candidate's own vLLM server: started with the flags that would be deployed, proven to be the one, and ended without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tune_gpu.config import VllmSettings
from tune_gpu.measurement import Failure, FailureKind, Phase, ServiceError
from tune_gpu.services.guard import shared_memory_of
from tune_gpu.services.launchers import EngineHost, Launch, Launched, launch_cold
from tune_gpu.services.models import resolve_llm
from tune_gpu.services.ports import free_port
from tune_gpu.services.start_failures import explain_exit

_FLAG_NAMES = {  # the settings that are flags of the same name
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "dtype",
    "kv_cache_dtype",
    "quantization",
    "block_size",
    "tensor_parallel_size",
    "enforce_eager",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "load_format",
}
_STOP_GRACE_S = 8.0


def serve_flags(settings: VllmSettings) -> list[str]:
    """The flags of `vllm serve` for these settings, model and port left out."""
    values: dict[str, Any] = {name: getattr(settings, name) for name in sorted(_FLAG_NAMES)}
    if settings.tensor_parallel_size == 1:
        del values["tensor_parallel_size"]
    if not settings.enforce_eager:
        del values["enforce_eager"]
    flags: list[str] = []
    for name, value in (values | dict(settings.extra_args)).items():
        flag = name.replace("_", "-")
        if value is None or (isinstance(value, str) and value == "auto" and name in _FLAG_NAMES):
            continue
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return flags


def parse_cores(cores: str | None) -> list[int] | None:
    """`"0,2-3"` -> [0, 2, 3], as taskset reads it. Raises ValueError for anything else."""
    if cores is None or cores == "":
        return None
    found: set[int] = set()
    for part in str(cores).split(","):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    if not found:
        raise ValueError(f"{cores!r} names no core")
    return sorted(found)


def engine_environment(
    settings: VllmSettings, api_key: str, device: str, scratch: str, base: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a server: this process's, and what the device and the settings add."""
    env = dict(os.environ if base is None else base)
    env.update(
        VLLM_API_KEY=api_key, VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", TMPDIR=scratch, PYTHONUNBUFFERED="1", VLLM_LOGGING_COLOR="0"
    )
    if os.path.isdir(resolve_llm(settings.model)):
        env["HF_HUB_OFFLINE"] = "1"
    if device == "cpu":
        cores = parse_cores(settings.cpu_cores) or sorted(os.sched_getaffinity(0))
        # The cores are the process's own affinity (taskset), so that a warm engine and a cold one are bound alike.
        env.update(VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS=str(len(cores)), CUDA_VISIBLE_DEVICES="")
    return env | dict(settings.env)


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """What a running engine says of itself."""

    start_s: float
    kv_cache_tokens: int | None
    kv_cache_blocks: int | None
    block_size: int | None
    max_concurrency: float | None
    """Sequences of `max_model_len` that fit the KV cache at the same time."""
    version: str | None

    def as_dict(self) -> dict[str, Any]:
        """For the artifacts."""
        return dataclasses.asdict(self)


class VllmServer:
    """One engine: `start` it, ask its `failure` while it is measured, `stop` it.

    Args:
        settings: the candidate's flags.
        device: `cuda` or `cpu`.
        port_range: where its port is taken from.
        host: the warm engine host; null for a cold start.
    """

    def __init__(
        self,
        settings: VllmSettings,
        *,
        device: str,
        port_range: Sequence[int],
        host: EngineHost | None = None,
        choose_port: Callable[[Sequence[int]], int] = free_port,
    ) -> None:
        self.settings = settings
        self.served_model_name = f"tune-gpu-{uuid.uuid4().hex[:12]}"
        self.api_key = uuid.uuid4().hex
        self.port = choose_port(port_range)
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._device = device
        # A candidate's own variables must be there when Python starts, so such an engine cannot come from the warm host.
        self._host = host if not settings.env else None
        self._scratch = Path(tempfile.mkdtemp(prefix="tg-"))
        self.log_path = self._scratch / "vllm.log"
        self._launched: Launched | None = None
        self._shared_memory: set[str] = set()
        self.info: EngineInfo | None = None

    def start(self, abort: Callable[[], str | None] = lambda: None) -> EngineInfo:
        """Start it and wait until it is ready and proven to be this one. Raises ServiceError, with nothing left running."""
        started = time.monotonic()
        argv = [
            "--model",
            resolve_llm(self.settings.model),
            "--served-model-name",
            self.served_model_name,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            *serve_flags(self.settings),
        ]
        env = engine_environment(self.settings, self.api_key, self._device, str(self._scratch))
        launch = Launch(argv, env, parse_cores(self.settings.cpu_cores) if self._device == "cpu" else None, self.log_path)
        try:
            self._launched = self._host.launch(launch, _STOP_GRACE_S) if self._host else launch_cold(launch, _STOP_GRACE_S)
            self._wait_until_ready(started, abort)
            self._prove_identity()
            self.info = self._read_info(time.monotonic() - started)
            self._shared_memory = shared_memory_of(self.pids())
        except BaseException:
            self.stop()
            raise
        return self.info

    def _wait_until_ready(self, started: float, abort: Callable[[], str | None]) -> None:
        assert self._launched is not None
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
                self._get("/health", timeout_s=2.0)
                return
            exit_code = self._launched.exit_code()
            if exit_code is not None:
                raise ServiceError(explain_exit("vllm", self.log(), exit_code))
            if reason := abort():
                raise ServiceError(Failure(FailureKind.SERVICE_LOST, "vllm", Phase.START, reason))
            if time.monotonic() - started > self.settings.start_timeout_s:
                lines = [line for line in self.log().splitlines() if line.strip()] or [""]
                message = f"not ready {self.settings.start_timeout_s:g} s after its start"
                raise ServiceError(Failure(FailureKind.STARTUP_TIMEOUT, "vllm", Phase.START, message, lines[-1][:500]))
            time.sleep(0.05)

    def _prove_identity(self) -> None:
        try:
            models = [str(model["id"]) for model in json.loads(self._get("/v1/models"))["data"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            models = [f"({error})"]
        if self.served_model_name not in models:
            assert self._launched is not None
            exit_code = self._launched.exit_code()
            if exit_code is not None or "ddress already in use" in self.log():
                raise ServiceError(explain_exit("vllm", self.log(), exit_code))
            message = f"port {self.port} is answered by a server of {', '.join(models)}, not by the one that was started"
            raise ServiceError(Failure(FailureKind.WRONG_SERVER, "vllm", Phase.START, message))

    def _read_info(self, start_s: float) -> EngineInfo:
        labels: dict[str, str] = {}
        for family in text_string_to_metric_families(self._get("/metrics")):
            if family.name == "vllm:cache_config_info":
                labels = dict(family.samples[0].labels)
        version = json.loads(self._get("/version")).get("version")
        blocks, block_size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
        tokens = _number(labels.get("kv_cache_size_tokens"))
        if tokens is None and blocks is not None and block_size is not None:
            tokens = blocks * block_size
        concurrency = _number(labels.get("kv_cache_max_concurrency"))
        if concurrency is None and tokens is not None and self.settings.max_model_len:
            concurrency = tokens / self.settings.max_model_len
        return EngineInfo(
            start_s,
            None if tokens is None else int(tokens),
            None if blocks is None else int(blocks),
            None if block_size is None else int(block_size),
            concurrency,
            version,
        )

    def failure(self) -> Failure | None:
        """Why it can no longer be measured; null while it runs."""
        if self._launched is None:
            return Failure(FailureKind.SERVICE_LOST, "vllm", Phase.LOAD, "it is not running")
        exit_code = self._launched.exit_code()
        if exit_code is None:
            return None
        found = explain_exit("vllm", self.log(), exit_code)
        kind = FailureKind.OOM if found.kind is FailureKind.STARTUP_OOM else FailureKind.SERVICE_LOST
        return dataclasses.replace(found, kind=kind, phase=Phase.LOAD, message=found.message.replace("while starting", "under load"))

    def pids(self) -> list[int]:
        """All of its processes."""
        return self._launched.pids() if self._launched else []

    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self) -> None:
        """End it; returns when its processes have gone. Calling it twice does nothing."""
        if self._launched is not None:
            self._launched.stop()
            self._launched = None
        for path in self._shared_memory:  # an engine that somebody killed could not unlink its own
            Path(path).unlink(missing_ok=True)
        self._shared_memory = set()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _get(self, path: str, timeout_s: float = 10.0) -> str:
        request = urllib.request.Request(self.base_url + path, headers={"Authorization": f"Bearer {self.api_key}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
            return str(reply.read().decode())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
