"""Call a driver from a separate thread, so that a driver that hangs becomes a failure and does not block the measurement."""

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
    """Call functions in a thread, with a time-out: `Answering("NVML", 2.0)(call)` returns what `call` returns.

    Args:
        name: the driver's name, for messages.
        timeout_s: longest wait for an answer. While an answer is overdue, every further call fails at once; calls work again after it has
            arrived.
    """

    def __init__(self, name: str, timeout_s: float) -> None:
        self._name, self._timeout_s = name, timeout_s
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._overdue: _Call | None = None
        self._lock = threading.Lock()
        # Daemon: a driver that hangs must not keep the program from ending.
        threading.Thread(target=self._serve, name=f"tune-gpu-{name.lower()}", daemon=True).start()

    def __call__(self, work: Callable[[], T]) -> T:
        """Return what the call returns, or raise what it raises. Raise ServiceError (`measurement_invalid`) if it does not return in
        time."""
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
        """End the thread as soon as it is idle."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()

    def _silent(self) -> ServiceError:
        message = f"{self._name} has not answered for {self._timeout_s:g} s: the driver hangs"
        return ServiceError(Failure(FailureKind.MEASUREMENT_INVALID, "tune_gpu", Phase.LOAD, message))
