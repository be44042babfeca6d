"""Ray's private corners are as they were read, and no module but `compat.py` names one.

A test that fails here after an upgrade of Ray says which corner has changed; `compat.py` says what this program needs of it.
"""

from __future__ import annotations

import ast
import inspect
import json
import mmap
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.util.client.worker
from ray import tune
from ray._private import ray_constants, services
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.search import ConcurrencyLimiter, Repeater, Searcher
from ray.tune.search.search_generator import SearchGenerator

from tests.support.searches import search_of
from tune_gpu.ray_tune import compat
from tune_gpu.ray_tune.saved_trials import KeptTrial, kept_trials

ROOT = Path(compat.__file__).parents[2]


def test_ray_is_the_version_that_compat_was_read_in() -> None:
    assert ray.__version__ == compat.READ_IN


class Asked(Searcher):
    """Notes which of Tune's objects asked for a suggestion."""

    def suggest(self, trial_id: str) -> dict[str, Any]:
        self.generator, self.limiter = compat.calling_generator(), compat.find_caller(ConcurrencyLimiter)
        return {"x": 1}


def test_a_searcher_finds_tunes_generator_behind_its_wrappers() -> None:
    searcher = Asked(metric="score", mode="max")
    limiter = ConcurrencyLimiter(Repeater(searcher, 2), 2)
    generator = SearchGenerator(limiter)
    generator.add_configurations(Experiment("made", lambda config: None, num_samples=20, time_budget_s=5.0))
    assert generator.next_trial() is not None
    assert searcher.generator is generator
    assert searcher.limiter is limiter
    assert compat.experiment_length(generator) == (20, 5.0)


def test_a_searcher_driven_by_hand_finds_nobody() -> None:
    searcher = Asked(metric="score", mode="max")
    searcher.suggest("t0")
    assert searcher.generator is None
    assert searcher.limiter is None
    assert compat.experiment_length(SearchGenerator(searcher)) == (0, None)


def test_tunes_controller_has_what_the_adapter_asks_it() -> None:
    class Asking(TuneController):
        def __init__(self) -> None:
            self._search_alg, self._trials = SearchGenerator(search_of()), []

        def ask(self) -> TuneController | None:
            return compat.calling_controller()

    asking = Asking()
    assert asking.ask() is asking
    assert isinstance(asking.search_alg, SearchGenerator)
    assert asking.get_trials() == []
    assert asking.get_trial("t0") is None


def test_tune_puts_placeholders_where_objects_were() -> None:
    space = inject_placeholders({"x": tune.choice([ROOT, 2]), "y": tune.sample_from(len)}, create_resolvers_map())
    assert [compat.is_placeholder(value) for value in space["x"].categories] == [True, False]
    assert compat.is_placeholder(space["y"])


def test_a_repeater_adds_the_key_that_compat_names() -> None:
    assert compat.REPEATER_KEY in (Repeater(search_of(), 2).suggest("t0") or {})


def test_names_are_joined_and_nested_as_tune_does_it() -> None:
    assert compat.flattened({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a/b": 1, "d": [1]}
    assert compat.nested({"a/b": 1, "d": [1]}) == {"a": {"b": 1}, "d": [1]}
    with pytest.raises(ValueError, match="delimiter"):
        compat.flattened({"a/b": 1}, refuse_slashes=True)


def test_a_trial_is_kept_as_tune_writes_it(tmp_path: Path) -> None:
    suggested = {"net": {"x": (1, 2)}, "f": len}
    trial = Trial("made", trial_id="t0", evaluated_params=compat.flattened(suggested), stub=True)
    trial.status = Trial.TERMINATED
    trial.run_metadata.last_result = {"score": 2.0}
    name = TuneController.CKPT_FILE_TMPL.format("2026-11-30")
    assert fnmatch(name, compat.STATE_FILES)
    assert '"trial_data": list(self._get_trial_checkpoints().values())' in inspect.getsource(TuneController.save_to_dir)
    (tmp_path / name).write_text(json.dumps({"trial_data": [trial.get_json_state()]}))
    assert kept_trials(tmp_path) == [KeptTrial("t0", compat.as_kept(suggested), True, {"score": 2.0})]


def test_tune_reports_failures_to_write_through_the_named_logger() -> None:
    assert tune_controller.logger.name == compat.CONTROLLER_LOGGER


def test_workers_know_the_settings_that_they_are_given() -> None:
    with Path(ray._raylet.__file__).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        assert binary.find(b"kill_child_processes_on_worker_exit\0") >= 0
        assert binary.find(b"InvalidAuthToken") >= 0, "see `wants_token`"
    assert compat.WORKER_ENVIRONMENT.keys() == {"RAY_kill_child_processes_on_worker_exit", ray_constants.RAY_WORKER_NICENESS}


def test_a_ray_within_the_block_is_on_the_loopback_address() -> None:
    before = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    with compat.loopback_only():
        assert services.get_node_ip_address() in ("127.0.0.1", "::1")
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert (dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER) == before


def test_ray_knows_the_argument_of_its_session_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Unknown keyword argument\(s\): made_up$"):
        ray.init("local", made_up=1, **compat.session_folder(tmp_path))


def test_a_token_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    try:
        for token in ("a" * 64, "b" * 64):
            (tmp_path / token[0]).write_text(token)
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / token[0]))
            compat.read_token_anew()
            assert AuthenticationTokenLoader.instance().get_raw_token() == token
    finally:
        monkeypatch.undo()
        compat.read_token_anew()


def test_a_refused_client_is_recognised_by_rays_words() -> None:
    assert compat.wants_token(AuthenticationError("no token"))
    assert compat.wants_token(ConnectionError("Unauthenticated: InvalidAuthToken: Authentication token is missing or incorrect"))
    assert not compat.wants_token(ConnectionError("refused"))
    [raised] = [line for line in inspect.getsource(ray.util.client.worker).splitlines() if "raise ConnectionError(\"ray client" in line]
    assert compat.client_timed_out(ConnectionError(raised.split('"')[1]))


def test_a_process_that_has_joined_nothing_is_no_client() -> None:
    assert not compat.through_client()


_PRIVATE = ("ray._", "ray.tune.execution", "ray.tune.impl", "ray.tune.utils", "ray.tune.search.search_generator", "ray.tune.search.repeater", "ray.util.client")
_PRIVATE_TEXT = ("sys._getframe", "sys.modules[", "_temp_dir", "__trial_index__", "ray.util.client")


def modules() -> list[Path]:
    found = [path for folder in ("tune_gpu", "trainables") for path in (ROOT / folder).rglob("*.py") if path.name != "compat.py"]
    assert len(found) > 100
    return found


def names_of_ray(path: Path) -> list[str]:
    """Return what a module names of Ray's private corners, outside `if TYPE_CHECKING`."""
    text = path.read_text()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [f"{node.module}.{alias.name}" for alias in node.names]
    found = [name for name in imported if name.startswith(_PRIVATE)] + [name for name in _PRIVATE_TEXT if name in text]
    if any(name.split(".")[0] == "ray" for name in imported):
        found += [
            ast.unparse(node) for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))]
    return found


def test_no_other_module_names_a_private_corner_of_ray() -> None:
    assert {str(path.relative_to(ROOT)): found for path in modules() if (found := names_of_ray(path))} == {}


@pytest.mark.parametrize("text", [
    "from ray._private import ray_constants", "def f():\n    from ray.tune.impl import placeholder", "import ray\nray.get(x)\ngenerator._experiment",
    "import sys\nsys._getframe(1)", "from ray.tune.search.repeater import TRIAL_INDEX", "from ray import _raylet"])
def test_a_private_corner_is_found_wherever_it_stands(text: str, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(text)
    assert names_of_ray(tmp_path / "made.py")
