"""Import vLLM once and fork API servers, so that a start costs only the engine's own time and no imports.

Most of a cold `vllm serve` on the CPU is Python imports, made three times over (API server, engine core, worker). Here they are made once.
That is safe only if nothing has been used that cannot be forked. So the host runs no tensor operation, starts no thread pool and
initialises no CUDA context, and refuses to serve if that ever changes. Each forked server leads its own session, which identifies the
processes of one engine, and every process forked below it dies with its parent.

Run as `python -m tune_gpu.services.vllm.fork_server SOCKET`. It uses JSON lines over that Unix socket, with one client at a time:
`{"op": "start", "argv": […], "env": {…}, "log": PATH, "cores": [0], "shm": "/tg…"}` -> `{"pid": 1}`; `{"op": "poll", "pid": 1}` ->
`{"exit_code": null}`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
from typing import Any

from tune_gpu.common.imports import uncollected
from tune_gpu.common.process.guard import die_with_parent

LATE_IMPORTS = (
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.layers.quantization.compressed_tensors.utils",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
)
"""Modules that vLLM imports inside functions while it starts (`PYTHONPROFILEIMPORTTIME=1` in the host's environment lists them in the
engine's log)."""
API_SERVER = "vllm.entrypoints.openai.api_server"


def preload() -> None:
    """Import what the three processes of a server need, and make vLLM fork its processes instead of spawning them."""
    import multiprocessing

    import vllm.utils.system_utils as system_utils

    fork = multiprocessing.get_context("fork")
    # vLLM's CPU platform insists on spawn, so that OpenMP reads its affinity anew; here the affinity is the process's own (taskset).
    system_utils.get_mp_context = lambda: fork
    import torch
    import vllm.entrypoints.openai.api_server
    import vllm.model_executor.models.llama
    import vllm.v1.core.sched.scheduler
    import vllm.v1.engine.async_llm
    import vllm.v1.engine.core
    import vllm.v1.executor.multiproc_executor

    for name in LATE_IMPORTS:
        with contextlib.suppress(ImportError):  # an import here is only earlier than in the server, never additional
            importlib.import_module(name)
    if torch.cuda.is_initialized():
        raise RuntimeError("importing vLLM has initialised CUDA: engines cannot be forked from this process; set run.warm_engine=false")
    if not torch.cuda.is_available():
        import vllm.v1.worker.cpu_worker  # noqa: F401
    # Each of the three processes walks its whole heap (three collections) before it serves. Inherited objects are exempt from that,
    # and their pages stay shared (gc.freeze's documentation: before a fork, without it).
    gc.collect()
    gc.freeze()


def name_shared_memory(prefix: str) -> None:
    """Prefix the names of `multiprocessing.shared_memory` segments that are made without a name, here and in every process forked from
    here.

    The owner of the server can then unlink them by name, even if all processes were killed before their segments were known.
    """
    from multiprocessing import shared_memory

    shared_memory._SHM_NAME_PREFIX = prefix  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(prefix) + 8  # type: ignore[attr-defined]


def become_server(argv: list[str], env: dict[str, str], log: str, cores: list[int] | None, shm: str) -> None:
    """Apply this environment, these cores and this log in the forked child, and run vLLM's API server. Does not return."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(env)
        name_shared_memory(shm)
        tempfile.tempdir = None  # forget the host's: the server's own folder (TMPDIR) is removed with the server
        if cores:
            import torch

            os.sched_setaffinity(0, cores)
            torch.set_num_threads(len(cores))
        sys.argv = [API_SERVER, *argv]
        runpy.run_module(API_SERVER, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(request: dict[str, Any], connection: socket.socket, ended: dict[int, int]) -> dict[str, Any]:
    """Carry out one request of the client."""
    if request["op"] == "start":
        pid = os.fork()
        if pid == 0:
            connection.close()
            become_server(request["argv"], request["env"], request["log"], request["cores"], request["shm"])
        return {"pid": pid}
    pid = request["pid"]
    if pid not in ended:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            ended[pid] = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    return {"exit_code": ended.get(pid)}


def main(path: str) -> None:
    """Preload, then serve the socket until it is closed."""
    os.register_at_fork(after_in_child=die_with_parent)
    with uncollected():
        preload()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    connection, _ = listener.accept()
    listener.close()
    ended: dict[int, int] = {}
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            connection.sendall(json.dumps(answer(json.loads(line), connection, ended)).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
