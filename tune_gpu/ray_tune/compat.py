"""All uses of private or undocumented parts of Ray, as of Ray 2.60.0 (`READ_IN`).

No other module uses them; `tests/unit/ray_tune/test_compat.py` checks that, and has a test for each that fails when Ray changes it.
Ray is imported inside the functions, because importing `ray.tune` takes seconds and a comparison does not need it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.search.search_generator import SearchGenerator

READ_IN = "2.60.0"
"""The version of Ray whose source these uses follow."""

# --- The searcher's callers: Ray does not pass a searcher `num_samples`, the time budget, or whether a `ConcurrencyLimiter` works in batches.

_CALLERS = 13
"""Number of frames to search: wrappers (a `ConcurrencyLimiter`, a `Repeater`) may stand between the searcher and Tune."""
_Caller = TypeVar("_Caller")


def find_caller(kind: type[_Caller]) -> _Caller | None:
    """Return the object of this class that is calling, directly or through others. Return None if user code calls the searcher."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_CALLERS):
        if frame is None:
            return None
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            return caller
        frame = frame.f_back
    return None


def calling_generator() -> SearchGenerator | None:
    """Return Tune's object that makes trials from suggestions if it is calling, else None."""
    from ray.tune.search.search_generator import SearchGenerator

    return find_caller(SearchGenerator)


def calling_controller() -> TuneController | None:
    """Return Tune's event loop if it is calling, else None."""
    from ray.tune.execution.tune_controller import TuneController

    return find_caller(TuneController)


def experiment_length(generator: SearchGenerator) -> tuple[int, float | None]:
    """Return `num_samples` and `time_budget_s` of the experiment that the generator makes trials for."""
    experiment = generator._experiment
    spec: dict[str, Any] = {} if experiment is None else experiment.public_spec
    return generator.total_samples, spec.get("time_budget_s")


# --- How Tune rewrites a search space and a suggestion.

_PLACEHOLDERS = ("__ref_ph", "__fn_ph")
"""`ray.tune.impl.placeholder`: the tokens of `_RefResolver` and `_FunctionResolver`."""
REPEATER_KEY = "__trial_index__"
"""`ray.tune.search.repeater.TRIAL_INDEX`: the key that a `Repeater` adds to each suggestion."""


def is_placeholder(value: Any) -> bool:
    """Return whether Tune put this value in place of a function or another object. Only the run that made it can resolve it."""
    return isinstance(value, tuple) and value[:1] in tuple((token,) for token in _PLACEHOLDERS)


def flattened(config: Mapping[str, Any], *, refuse_slashes: bool = False) -> dict[str, Any]:
    """Return nested names joined by `/`, as Tune joins them. If slashes are refused, raise ValueError for a name that contains one."""
    from ray.tune.utils.util import flatten_dict

    return dict(flatten_dict(dict(config), prevent_delimiter=refuse_slashes))


def nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return names with `/` as nested mappings, as Tune nests them."""
    from ray.tune.utils.util import unflatten_dict

    return dict(unflatten_dict(dict(config)))


# --- Tune's own state of an experiment, in its folder.

STATE_FILES = "experiment_state-*.json"


def as_kept(suggested: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suggestion as Tune stores it: flat, and values that JSON cannot hold as pickles in text. The text is only compared, never
    unpickled."""
    from ray.tune.utils.serialization import TuneFunctionEncoder

    kept: dict[str, Any] = json.loads(json.dumps(flattened(suggested), cls=TuneFunctionEncoder))
    return kept


# --- A local Ray.

CONTROLLER_LOGGER = "ray.tune.execution.tune_controller"
"""The logger through which Tune reports that it could not write its state."""
WORKER_ENVIRONMENT = {
    "RAY_kill_child_processes_on_worker_exit": "0",  # each child has a guard, which ends more than Ray would and must survive the worker
    # Ray runs its workers at niceness 15. Other load on the machine would then delay the load generator and look like a slow service.
    "RAY_worker_niceness": "0",
}
"""Ray's internal settings that each worker reads at its start. A local Ray passes on this process's; a cluster's nodes have their own."""


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Make a Ray that is started within the block listen on 127.0.0.1 only. By default it listens on all interfaces, on a dozen ports.

    Loopback is Ray's default on macOS and Windows, through one setting. The setting works on Linux, too.
    """
    from ray._private import ray_constants

    variable, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[variable] = "0"  # for the processes that Ray starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(variable, None)


def session_folder(folder: Path) -> dict[str, Any]:
    """Return the argument of `ray.init` that puts a session's files into this folder."""
    return {"_temp_dir": str(folder)}


def read_token_anew() -> None:
    """Forget the authentication mode and token that Ray read first. Call this before Ray starts. A client that is still connected after an
    interrupt keeps its own."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


# --- Joining a cluster.


def through_client() -> bool:
    """Return whether this process is connected to its cluster by `ray://`."""
    import ray.util.client

    return bool(ray.util.client.ray.is_connected())


def wants_token(error: BaseException) -> bool:
    """Return whether a cluster refused this process because it has no valid token. Ray reports that in the error's text or type."""
    from ray.exceptions import AuthenticationError

    return isinstance(error, AuthenticationError) or "InvalidAuthToken" in str(error)


def client_timed_out(error: BaseException) -> bool:
    """Return whether Ray's client timed out waiting for its server. That may be a refusal, which Ray reports only in its debug log."""
    return "ray client connection timeout" in str(error)


# --- Tune's TensorBoard logs.


def import_tensorboard_writer() -> None:
    """Import tensorboardX, which Tune's logger uses, as if PyTorch were not installed.

    tensorboardX imports all of PyTorch (1.3 s and 200 MiB) only to recognise tensors, but Tune logs only numbers. If PyTorch is
    imported already, do nothing.
    """
    if "tensorboardX" in sys.modules or "torch" in sys.modules:
        return
    sys.modules["torch"] = cast(Any, None)  # with None here an import raises ImportError (Python's import system, "The module cache")
    try:
        importlib.import_module("tensorboardX")
    except ImportError:  # tensorboardX is not installed, so Tune writes no TensorBoard logs
        return
    finally:
        del sys.modules["torch"]
