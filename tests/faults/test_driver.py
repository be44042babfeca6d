"""The driver, its trials, its node and its disk broken in the middle of a run: nothing finished is lost, nothing is left, and it can go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.ray

SETTINGS = ["device=cpu", "ray.dashboard=false", "run.preflight=false", "workload.windows=1", "search.generations=2", "search.recheck=0"]
ALL = ["g0-c0", "g0-c1", *(f"g1-c{c}" for c in range(4))]


class Driver:
    """A run of the cheap launch, in a process group of its own, as a terminal starts it; whatever it starts carries a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    def start(self, *arguments: str, settings: list[str] = SETTINGS, **environment: str) -> Driver:
        given = arguments if "--resume" in arguments else (*settings, *arguments)
        command = [sys.executable, "-m", "tests.faults.cheap_launch", *given, f"run.artifacts_dir={self.folder}"]
        env = {**os.environ, "FAULT_MARK": self.mark, **environment}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
        )
        return self

    def wait_for(self, text: str) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"{text!r} never came: {self.output}")

    def end(self) -> int:
        """Wait for its end; its output is in `output` then."""
        assert self.process is not None
        self.output += self.process.communicate(timeout=120)[0]
        return self.process.returncode

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to the whole group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def marked(self) -> list[psutil.Process]:
        """All that it started, however deep, and that is still there."""
        found = []
        for process in psutil.process_iter(["status"]):
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("FAULT_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def lines(self) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob("spica_gpu_allocation/*/gen_*_candidates.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def run_id(self) -> str:
        (run,) = (self.folder / "spica_gpu_allocation").iterdir()
        return run.name

    def check_nothing_is_left(self) -> None:
        """Ray's own helpers may take some seconds to notice the end of a driver that was killed."""
        _, alive = psutil.wait_procs(self.marked(), timeout=40)
        assert not [p.cmdline()[:4] for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not self.marked()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path / "artifacts")
    yield driver
    for process in driver.marked():
        with contextlib.suppress(psutil.Error):
            process.kill()
    if driver.process is not None:
        driver.process.wait()
        if driver.process.stdout is not None:
            driver.process.stdout.close()


def check_clear(driver: Driver) -> None:
    """What a person sees is a clear word, not a stack."""
    assert "Traceback" not in driver.output, driver.output


def everything_in(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_and_resumed_twice_nothing_is_lost_or_measured_again(driver: Driver, rng: random.Random) -> None:
    kept: list[dict[str, Any]] = []
    for kill_after in ("g0-c1 ok", "g1-c1 ok"):
        driver.start(*(["--resume", driver.run_id()] if kept else []))
        driver.wait_for(kill_after)
        time.sleep(rng.uniform(0.0, 0.3))
        assert driver.process is not None
        driver.process.kill()
        driver.end()
        driver.check_nothing_is_left()
        lines = driver.lines()
        assert lines[: len(kept)] == kept, "what was finished is there, unchanged"
        assert len(lines) > len(kept)
        kept = lines
    with (driver.folder / "spica_gpu_allocation" / driver.run_id() / "gen_1_candidates.jsonl").open("a") as half:
        half.write('{"candidate_id": "g1-c')
    driver.start("--resume", driver.run_id())
    assert driver.end() == 0, driver.output
    check_clear(driver)
    assert driver.lines()[: len(kept)] == kept
    assert [line["candidate_id"] for line in driver.lines()] == ALL, "each candidate once"
    driver.check_nothing_is_left()
    before, driver.output = everything_in(driver.folder), ""
    driver.start("--resume", driver.run_id())
    assert driver.end() == 0, driver.output
    assert "has ended (generations): the winner is" in driver.output
    assert everything_in(driver.folder) == before, "a run that has ended is not changed"


def test_long_run_goes_through_several_tuners_unnoticed(driver: Driver) -> None:
    driver.start(CHEAP_TRIALS_A_TUNER="4", CHEAP_EVALUATION_S="0")
    assert driver.end() == 0, driver.output
    check_clear(driver)
    assert [line["candidate_id"] for line in driver.lines()] == ALL, "the second begins in the middle of a generation"
    assert {path.name for path in driver.folder.glob("*/*/ray/*")} == {"attempt-1", "attempt-2", "anchors-3"}, "and the baseline again"
    assert "--resume" not in driver.output
    driver.check_nothing_is_left()


@pytest.mark.soak
@pytest.mark.parametrize("number", range(8))
def test_ctrl_c_at_a_drawn_moment(driver: Driver, rng: random.Random, number: int) -> None:
    """From the first word (before Ray is up) to the last evaluation."""
    delay_s = rng.uniform(0.0, 12.0)
    driver.start()
    driver.wait_for("was asked for")
    time.sleep(delay_s)
    driver.interrupt()
    code = driver.end()
    assert code in (0, 130), f"after {delay_s:.1f} s: {code} {driver.output}"
    check_clear(driver)
    driver.check_nothing_is_left()


def open_to_others(driver: Driver) -> list[tuple[str, object]]:
    """Sockets of the run that listen on anything but loopback; there is at least one that listens."""
    seen = []
    for process in driver.marked():
        with contextlib.suppress(psutil.Error):
            name = " ".join(process.cmdline())[:80]
            seen += [(name, socket.laddr) for socket in process.net_connections("inet") if socket.status == psutil.CONN_LISTEN]
    assert seen, "Ray listens"
    return [found for found in seen if found[1].ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_to_the_driver_keeps_results_and_ray_is_local(driver: Driver, number: signal.Signals) -> None:
    """As a supervisor, an editor or a notebook stops it; Ctrl-C in a terminal reaches the whole group."""
    driver.start()
    driver.wait_for("g0-c1 ok")
    assert open_to_others(driver) == []
    assert driver.process is not None
    driver.process.send_signal(number)
    assert driver.end() == 130, driver.output
    check_clear(driver)
    assert "--resume" in driver.output
    assert len(driver.lines()) >= 2
    driver.check_nothing_is_left()


def test_a_second_ctrl_c_while_it_stops(driver: Driver, rng: random.Random) -> None:
    driver.start()
    driver.wait_for("g0-c1 ok")
    driver.interrupt()
    time.sleep(rng.uniform(0.0, 1.0))
    with contextlib.suppress(ProcessLookupError):
        driver.interrupt()
    assert driver.end() == 130, driver.output
    assert len(driver.lines()) >= 2
    driver.check_nothing_is_left()


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_stops_the_run_with_one_line_and_it_resumes(driver: Driver) -> None:
    with small_disk(driver.folder, 4):
        driver.start()
        driver.wait_for("g0-c1 ok")
        filler = driver.folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert driver.end() == 2, driver.output
        check_clear(driver)
        assert "No space left" in driver.output
        assert "--resume" in driver.output
        kept = driver.lines()
        assert len(kept) >= 2
        driver.check_nothing_is_left()
        filler.unlink()
        driver.start("--resume", driver.run_id())
        assert driver.end() == 0, driver.output
        assert driver.lines()[: len(kept)] == kept
        assert [line["candidate_id"] for line in driver.lines()] == ALL


@pytest.mark.soak
def test_a_folder_that_becomes_read_only(driver: Driver) -> None:
    with small_disk(driver.folder, 16):
        driver.start()
        driver.wait_for("g0-c1 ok")
        # Files that are open for writing forbid the change for a moment (Ray's own logs).
        while subprocess.run(["mount", "-o", "remount,ro", str(driver.folder)], capture_output=True).returncode:
            time.sleep(0.02)
        assert driver.end() == 2, driver.output
        check_clear(driver)
        assert "Read-only" in driver.output
        assert len(driver.lines()) >= 2
        driver.check_nothing_is_left()


@pytest.mark.soak
def test_a_file_that_may_not_grow(driver: Driver) -> None:
    """RLIMIT_FSIZE, where no disk can be mounted: the half-written line is taken back."""
    driver.start()
    driver.wait_for("g0-c1 ok")
    assert driver.process is not None
    (lines,) = driver.folder.glob("*/*/gen_0_candidates.jsonl")
    size = lines.stat().st_size
    resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    assert driver.end() == 2, driver.output
    check_clear(driver)
    assert "File too large" in driver.output
    assert all(line["status"] == "ok" for line in driver.lines())
    driver.check_nothing_is_left()


@pytest.mark.soak
@pytest.mark.own_cluster
def test_a_worker_node_dies_and_the_run_goes_on_on_another(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose head runs no trials: its only worker node is killed in the middle of an evaluation, and another one joins."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("FAULT_MARK", driver.mark)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        driver.start(f"ray.address={cluster.address}", "search.generations=1", CHEAP_EVALUATION_S="3")
        driver.wait_for("g0-c0 initial")
        services: list[psutil.Process] = []
        while not services:
            services = [process for process in driver.marked() if process.name() == "sleep"]
        cluster.remove_node(node, allow_graceful=False)
        psutil.wait_procs(services, timeout=30)
        assert not any(service.is_running() and service.status() != psutil.STATUS_ZOMBIE for service in services), "its services went with it"
        cluster.add_node(num_cpus=2)
        assert driver.end() == 0, driver.output
    finally:
        cluster.shutdown()
    by_id = {line["candidate_id"]: line for line in driver.lines()}
    assert set(by_id) == {"g0-c0", "g0-c1"}
    assert by_id["g0-c1"]["status"] == "ok"
    lost = by_id["g0-c0"]
    assert lost["status"] == "ok" or lost["failure"]["kind"] == "service_lost", lost["failure"]
    driver.check_nothing_is_left()


WRONG_FLAG = "(APIServer pid={pid}) vllm serve: error: unrecognized arguments: --gpu-memory-utilisation 0.5"


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_wrong_flag_ends_a_run_after_two_candidates_and_is_said(driver: Driver, in_flight: int) -> None:
    settings = [*SETTINGS, "search.initial=5", f"ray.max_concurrent_trials={in_flight}", "ray.cpus_per_trial=0.5", "ray.max_retries=0"]
    driver.start(settings=settings, CHEAP_LOG=WRONG_FLAG)
    assert driver.end() == 1, driver.output
    check_clear(driver)
    assert len(driver.lines()) == 2
    (message,) = [line for line in driver.output.splitlines() if "No candidate starts" in line]
    assert "unrecognized arguments: --gpu-memory-utilisation 0.5" in message
    assert all(f"{line['candidate_id']} failed: startup_crash" in driver.output for line in driver.lines())
    (path,) = driver.folder.glob("*/*/summary.json")
    summary = json.loads(path.read_text())
    assert (summary["ended"], summary["counts"], summary["best"]) == ("same failure", {"failed": 2}, None)
    assert "--gpu-memory-utilisation" in summary["ended_reason"]
    driver.check_nothing_is_left()
    if in_flight == 1:
        before, driver.output = everything_in(driver.folder), ""
        driver.start("--resume", driver.run_id(), CHEAP_LOG=WRONG_FLAG)
        assert driver.end() == 1, driver.output
        assert "has ended (same failure)" in driver.output
        assert everything_in(driver.folder) == before, "what would fail again is not tried again"


def test_candidates_that_are_too_large_alike_do_not_end_a_run(driver: Driver) -> None:
    driver.start(CHEAP_LOG="ValueError: No available memory for the cache blocks.", CHEAP_EVALUATION_S="0")
    assert driver.end() == 1, driver.output
    assert [line["candidate_id"] for line in driver.lines()] == ALL, "a smaller one might have fit"
    assert "No candidate starts" not in driver.output


def test_a_pareto_run_that_lost_an_objective_is_resumed(driver: Driver) -> None:
    settings = [*SETTINGS, "search.objectives={wer: min, fitness: max}", "confirm.enabled=false"]
    driver.start(settings=settings, CHEAP_NO_WER_WITH="base")
    driver.wait_for("g1-c1 ok")
    assert driver.process is not None
    driver.process.kill()
    driver.end()
    driver.check_nothing_is_left()
    kept = driver.lines()
    lacking = [line for line in kept if "wer" not in line["objectives"]]
    assert lacking
    assert all(line["fitness"] is not None for line in lacking), "it was measured, and is kept"
    driver.output = ""
    driver.start("--resume", driver.run_id(), CHEAP_NO_WER_WITH="base")
    assert driver.end() == 0, driver.output
    check_clear(driver)
    assert "search.objectives.wer (not measured)" in driver.output
    assert driver.lines()[: len(kept)] == kept
    assert [line["candidate_id"] for line in driver.lines()] == ALL
    (path,) = driver.folder.glob("*/*/summary.json")
    summary = json.loads(path.read_text())
    assert summary["best"]["params"]["whisper_model_size"] == "tiny.en"
    assert {standing["params"]["whisper_model_size"] for standing in summary["pareto_front"]} == {"tiny.en"}
    driver.check_nothing_is_left()
