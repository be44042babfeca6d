"""Runs an apply or a rollback in a process of its own that is struck at one of its steps: `python -m tests.unit.promote.struck`.

Each line on standard input is a JSON list: the path of a pickled `Setup`, and a `Strike`. The answer is a line with how that process ended
and the steps that it began. The processes are forked from this one, which has everything imported, because the tests strike hundreds of
times.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tune_gpu.common.interrupt import terminated_as_interrupt
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.promote import watch
from tune_gpu.promote.apply import Deployer
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.installed import Installation
from tune_gpu.promote.watch import Expected, Watcher

NEW = "new"


@dataclass(frozen=True)
class Setup:
    """What the struck processes work on."""

    config: ExperimentConfig
    files: Mapping[Path, str]
    reviewed: Mapping[str, str | None]
    target_disk: Path
    artifacts_disk: Path
    environment: Mapping[str, str]
    """Of the process that is struck."""
    steps: Path
    """The steps are written here: a process that is killed can tell nothing."""


@dataclass(frozen=True)
class Strike:
    """What happens, and when."""

    action: str
    """`apply`, `rollback`, or `fall short`: an apply whose engine is found to be another."""
    how: str
    at: int | None
    """The number of the step; null for none."""


def fill(disk: Path) -> None:
    """Until there is no byte left."""
    with contextlib.suppress(OSError), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def failing(*_: object) -> None:
    raise RuntimeError("struck")


def blow(setup: Setup, how: str) -> Callable[[], None]:
    """What is done at the step."""

    def full_artifacts() -> None:
        fill(setup.artifacts_disk)
        failing()

    signals = {"SIGHUP": signal.SIGHUP, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGKILL": signal.SIGKILL}
    if how in signals:
        return lambda: os.kill(os.getpid(), signals[how])
    return {"exception": failing, "full target": lambda: fill(setup.target_disk), "full artifacts": full_artifacts}[how]


def struck(setup: Setup, strike: Strike) -> int:
    """The process that is struck, and its exit code: the command's."""
    real, count, strikes = Installation.intend, 0, blow(setup, strike.how)
    steps = os.open(setup.steps, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def intend(self: Installation, step: str) -> None:
        nonlocal count
        count += 1
        os.write(steps, f"{step}\n".encode())
        if count - 1 == strike.at and strike.how == "full target":
            strikes()
        real(self, step)
        if count - 1 == strike.at and strike.how != "full target":
            strikes()

    Installation.intend = intend  # type: ignore[method-assign]
    promote = setup.config.promote
    audit = Audit(setup.artifacts_disk / "promotions" / "audit.jsonl", {"run_id": NEW})
    deployer = Deployer.of(promote, Watcher(promote, setup.config.workload, []), audit)
    with terminated_as_interrupt():
        if strike.action != "rollback":
            expected = Expected("demo-llm" if strike.action == "apply" else "another", "cpu", None)
            return 0 if deployer.apply(NEW, "experiment", setup.files, setup.reviewed, expected) is None else 3
        return 0 if deployer.rollback()[1].serving else 4


def main() -> None:
    """See the module's text."""
    watch._POLL_S = 0.01
    for line in sys.stdin:
        path, wanted = json.loads(line)
        setup: Setup = pickle.loads(Path(path).read_bytes())
        strike = Strike(**wanted)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.environ.clear()
                os.environ.update(setup.environment)
                code = struck(setup, strike)
            except BaseException as error:
                print(f"{strike}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                code = 130 if isinstance(error, KeyboardInterrupt) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), setup.steps.read_text().splitlines()]), flush=True)


if __name__ == "__main__":
    main()
