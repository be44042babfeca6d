"""A cluster of nodes with made-up GPUs: evaluations that only wait, one node killed in the middle; drivers that join it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.ray.noop import LOG, TOGETHER, WAIT, NoopTrainable, noted
from tests.ray.noop_run import experiment
from tune_gpu.config.schema import RaySettings
from tune_gpu.ray_tune.session import local_or_joined_ray

pytestmark = pytest.mark.ray

WAIT_S = 2.0
# The trials start their actors on the cores of this one machine: what is lost between two of them is the cores', not the placement's.
# On an idle machine ask for more: TUNE_GPU_BUSY=0.9.
BUSY = float(os.environ.get("TUNE_GPU_BUSY", "0.5"))


class Scale(NamedTuple):
    """How large the cluster is, and how much it does."""

    nodes: int
    cards: int
    """The cards of each node."""
    evaluations: int

    @property
    def kill_after(self) -> int:
        """So many evaluations have ended when a node is killed."""
        return self.evaluations * 11 // 20

    @property
    def node(self) -> dict[str, int]:
        return {"num_cpus": 2, "num_gpus": self.cards, "object_store_memory": 80 * 2**20}


SMALL, LARGE = Scale(3, 2, 60), Scale(4, 4, 200)


@pytest.fixture(scope="module", params=[pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.soak)])
def scale(request: pytest.FixtureRequest) -> Scale:
    found: Scale = request.param
    return found


@pytest.fixture(scope="module")
def client_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(client_port: int, scale: Scale) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:  # what a client sends is loaded by the cluster, which must find these tests
        patch.delenv("RAY_worker_niceness", raising=False)  # nobody who starts a cluster has set it
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])))
        yield from _started(client_port, scale)


def _started(client_port: int, scale: Scale) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={**scale.node, "include_dashboard": False, "ray_client_server_port": client_port})
    for _ in range(scale.nodes - 1):
        cluster.add_node(wait=False, **scale.node)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def joined(cluster: Cluster, scale: Scale, tmp_path: Path) -> Iterator[None]:
    os.environ.update(TUNE_DISABLE_STRICT_METRIC_CHECKING="1", TUNE_GLOBAL_CHECKPOINT_S="0", RAY_AIR_NEW_OUTPUT="0")
    variables = {LOG: str(tmp_path / "log"), WAIT: str(WAIT_S), TOGETHER: str(scale.nodes * scale.cards)}
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


def kill_a_node_when(log: Path, cluster: Cluster, after: int, ended: threading.Event) -> threading.Thread:
    """Kill a node that is not the driver's, once so many evaluations have ended."""

    def watch() -> None:
        while not ended.wait(0.1):
            if len(noted(log)) >= after:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_each_card_holds_one_trial_and_a_dead_node_loses_nothing(
    cluster: Cluster, joined: None, scale: Scale, tmp_path: Path
) -> None:
    """Cards are kept busy meanwhile."""
    ended = threading.Event()
    killer = kill_a_node_when(tmp_path / "log", cluster, scale.kill_after, ended)
    run = experiment(
        tmp_path,
        NoopTrainable,
        "cuda",
        scale.nodes * scale.cards,
        f"search.initial={scale.evaluations}",
        "ray.cpus_per_trial=0.25",
        "ray.cpus_per_service=0.125",
    )
    run.run()
    ended.set()
    killer.join()
    cluster.wait_for_nodes(timeout=90)  # its head may notice a death later than the trials do
    evaluations = noted(tmp_path / "log")
    on_cards = cards(evaluations)

    assert all(len(line["visible"].split(",")) == 1 and line["visible"] for line in evaluations), "every trial sees one card"
    for stays in on_cards.values():
        assert all(before["ended"] <= after["begun"] for before, after in pairwise(stays)), "no card holds two trials"
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert len(alive) == scale.nodes - 1
    assert len(on_cards) == scale.nodes * scale.cards

    lines = {line.candidate_id: line for line in run.folder.candidates()}
    assert len(lines) == scale.evaluations, "nothing is lost"
    assert {line.status for line in lines.values()} == {"ok"}
    assert {line["x"] for line in evaluations} == {line.params["x"] for line in lines.values()}
    hit = [line for line in lines.values() if line.n_retries]
    assert 1 <= len(hit) <= scale.cards, "what was on the dead node is measured again"
    assert {cause.kind for line in hit for cause in line.retries} == {"service_lost"}

    share = busy_share(on_cards, until=min(stays[-1]["ended"] for (node, _), stays in on_cards.items() if node not in alive))
    print(f"busy: {100 * share:.1f} % of what ideal packing gives, {len(evaluations)} evaluations on {len(on_cards)} cards")
    assert share >= BUSY


def cards(evaluations: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(node, device) -> its evaluations in order."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in sorted(evaluations, key=lambda line: float(line["begun"])):
        found.setdefault((line["node"], line["visible"]), []).append(line)
    return found


def busy_share(on_cards: dict[tuple[str, str], list[dict[str, Any]]], until: float) -> float:
    """How much of the cards' time was spent in evaluations, from when all had begun their first to when the node died: ideal packing is 1."""
    since = max(stays[0]["begun"] for stays in on_cards.values())
    busy = sum(
        max(0.0, min(line["ended"], until) - max(line["begun"], since)) for stays in on_cards.values() for line in stays
    )
    return busy / ((until - since) * len(on_cards))


def test_a_driver_joins_by_auto_and_by_ray_client(cluster: Cluster, client_port: int, tmp_path: Path) -> None:
    """Its results come back to this machine."""
    command = [sys.executable, "-m", "tests.ray.joining", str(tmp_path), "auto", f"ray://127.0.0.1:{client_port}"]
    driver = subprocess.run(command, env=os.environ | {"RAY_ADDRESS": cluster.address}, capture_output=True, text=True, timeout=280, check=False)
    assert driver.returncode == 0, driver.stdout + driver.stderr
    assert driver.stdout.count("generations {'ok': 6}") == 2, driver.stdout
    for number in ("0", "1"):
        (lines,) = (tmp_path / number).glob("noop/run/gen_0_candidates.jsonl")
        assert len(lines.read_text().splitlines()) == len(noted(tmp_path / number / "log")) == 6


def test_workers_of_a_joined_cluster_run_at_a_local_rays_priority(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    settings = RaySettings(address=cluster.address, runtime_env={"env_vars": {"TOLD": "by the user"}})
    with local_or_joined_ray(settings):
        look: Any = ray.remote(lambda: (os.nice(0), os.environ["TOLD"]))
        assert ray.get(look.options(num_gpus=1).remote()) == (os.nice(0), "by the user")
