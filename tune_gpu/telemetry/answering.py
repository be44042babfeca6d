"""Calls a driver from a thread of its own: one that stops answering cannot stop the measurement, it becomes a failure."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tune_gpu.common.failures import Failure, FailureKind, Phase, ServiceError

T = TypeVar("T")


class _Call:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()


class Answering:
    """`Answering("NVML", 2.0)(call)` gives what the call gives.

    Args:
        name: of who is asked, for messages.
        timeout_s: how long an answer may take. While one is overdue, every further question fails at once; when it comes, all is well again.
    """

    def __init__(self, name: str, timeout_s: float) -> None:
        self._name, self._timeout_s = name, timeout_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._overdue: _Call | None = None
        self._lock = threading.Lock()
        # Daemon: a driver that hangs must not keep the program from ending.
        threading.Thread(target=self._serve, name=f"tune-gpu-{name.lower()}", daemon=True).start()

    def __call__(self, work: Callable[[], T]) -> T:
        """Raises ServiceError (`measurement_invalid`) if no answer comes in time, or whatever the call raises."""
        with self._lock:
            if self._overdue is not None and not self._overdue.done.is_set():
                raise self._silent()
            call = _Call(work)
            self._calls.put(call)
            if not call.done.wait(self._timeout_s):
                self._overdue = call
                raise self._silent()
        if call.error is not None:
            raise call.error
        return cast(T, call.result)

    def close(self) -> None:
        """End the thread, as soon as it has nothing to wait for."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()

    def _silent(self) -> ServiceError:
        message = f"{self._name} has not answered for {self._timeout_s:g} s: the driver hangs"
        return ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))
