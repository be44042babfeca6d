"""Runs an apply or a rollback in a process of its own that gets a fault at one of its steps: `python -m tests.unit.promote.injected`.

Each line on standard input is a JSON list: the path of a pickled `Setup`, and an `Injection`. The answer is a line with how that process ended
and the steps that it began. The processes are forked from this one, which has everything imported, because the tests inject hundreds of
faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tune_gpu.common.interrupt import terminated_as_interrupt
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.promote import watch
from tune_gpu.promote.apply import Deployer
from tune_gpu.promote.audit import Audit
from tune_gpu.promote.installed import Installation
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.watch import Watcher

NEW = "new"


@dataclass(frozen=True)
class Setup:
    """The files and units that the processes with a fault work on."""

    config: ExperimentConfig
    services: Sequence[DeployedService]
    files: Mapping[Path, str]
    reviewed: Mapping[str, str | None]
    target_disk: Path
    artifacts_disk: Path
    environment: Mapping[str, str]
    """The variables of the process that gets the fault."""
    steps: Path
    """The steps are written here: a process that is killed can tell nothing."""


@dataclass(frozen=True)
class Injection:
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
    raise RuntimeError("injected")


def fault(setup: Setup, how: str) -> Callable[[], None]:
    """What is done at the step."""

    def full_artifacts() -> None:
        fill(setup.artifacts_disk)
        failing()

    signals = {"SIGHUP": signal.SIGHUP, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGKILL": signal.SIGKILL}
    if how in signals:
        return lambda: os.kill(os.getpid(), signals[how])
    return {"exception": failing, "full target": lambda: fill(setup.target_disk), "full artifacts": full_artifacts}[how]


def as_another(service: DeployedService) -> DeployedService:
    """A service whose engine must serve another model than it does."""
    config = dict(service.deployable.config)
    if "served-model-name" in config:
        config["served-model-name"] = "another"
    return replace(service, deployable=replace(service.deployable, config=config))


def run_injected(setup: Setup, injection: Injection) -> int:
    """Run the command with the fault in this process. Return its exit code."""
    real, count, inject = Installation.intend, 0, fault(setup, injection.how)
    steps = os.open(setup.steps, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def intend(self: Installation, step: str) -> None:
        nonlocal count
        count += 1
        os.write(steps, f"{step}\n".encode())
        if count - 1 == injection.at and injection.how == "full target":
            inject()
        real(self, step)
        if count - 1 == injection.at and injection.how != "full target":
            inject()

    Installation.intend = intend  # type: ignore[method-assign]
    promote = setup.config.promote
    audit = Audit(setup.artifacts_disk / "promotions" / "audit.jsonl", {"run_id": NEW})
    services = [as_another(service) for service in setup.services] if injection.action == "fall short" else setup.services
    deployer = Deployer.of(promote, [service.place for service in services], Watcher(promote), audit)
    with terminated_as_interrupt():
        if injection.action != "rollback":
            return 0 if deployer.apply(NEW, "experiment", services, setup.files, setup.reviewed, None) is None else 3
        return 0 if deployer.rollback()[1].serving else 4


def main() -> None:
    """See the module's text."""
    watch._POLL_S = 0.01
    for line in sys.stdin:
        path, wanted = json.loads(line)
        setup: Setup = pickle.loads(Path(path).read_bytes())
        injection = Injection(**wanted)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.environ.clear()
                os.environ.update(setup.environment)
                code = run_injected(setup, injection)
            except BaseException as error:
                print(f"{injection}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                code = 130 if isinstance(error, KeyboardInterrupt) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), setup.steps.read_text().splitlines()]), flush=True)


if __name__ == "__main__":
    main()
