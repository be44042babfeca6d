"""The CPU as a device, and its control group."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from tune_gpu.common.failures import Failure, FailureKind, Phase
from tune_gpu.common.process import cgroup
from tune_gpu.common.process.cgroup import MemoryGroup, memory_group
from tune_gpu.services.oom import KernelOomWatch
from tune_gpu.telemetry import cpu
from tune_gpu.telemetry.cpu import CpuProbe
from tune_gpu.telemetry.neighbours import neighbours_on
from tune_gpu.telemetry.probe import MIB
from tune_gpu.telemetry.sampler import DeviceSampler

GIB = 2**30


def group_v2(folder: Path, limit: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{3 * GIB}\n")
    (folder / "memory.stat").write_text(f"anon {2 * GIB}\ninactive_file {GIB}\n")
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n")
    return folder


def test_version_2_tells_limit_use_without_droppable_cache_and_kills(tmp_path: Path) -> None:
    group_v2(tmp_path / "user.slice" / "run", str(8 * GIB))
    group = memory_group("0::/user.slice/run\n", tmp_path)
    assert group is not None
    assert (group.limit(), group.used(), group.oom_kills()) == (8 * GIB, 2 * GIB, 3)


def test_a_lower_limit_of_an_ancestor_is_the_limit_and_its_use_counts(tmp_path: Path) -> None:
    """As systemd makes it: `MemoryMax=` of a slice, and no limit of the scope in it."""
    slice_of = group_v2(tmp_path / "user.slice", str(4 * GIB))
    scope = group_v2(slice_of / "session-3.scope", "max")
    (scope / "memory.current").write_text(f"{GIB}\n")
    group = memory_group("0::/user.slice/session-3.scope\n", tmp_path)
    assert group is not None
    assert (group.limit(), group.used()) == (4 * GIB, 2 * GIB)
    (scope / "memory.max").write_text(f"{GIB}\n")
    assert (group.limit(), group.used()) == (GIB, 0)


def test_kills_are_those_of_the_own_group_where_it_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = MemoryGroup(group_v2(tmp_path / "mine", "max"), 2)
    monkeypatch.setattr(cgroup, "memory_group", lambda: mine)
    watch = KernelOomWatch()
    lost = Failure(FailureKind.SERVICE_LOST, "whisper", Phase.LOAD, "it has ended")
    assert watch.explain(lost) is lost, "whatever the kernel killed elsewhere"
    (mine.folder / "memory.events").write_text("oom 3\noom_kill 4\n")
    found = watch.explain(lost)
    assert (found.kind, found.evidence) == (FailureKind.OOM_KILLED, f"{mine.folder}/memory.events: oom_kill rose from 3 to 4 while it ran")
    monkeypatch.setattr(cgroup, "memory_group", lambda: None)
    assert cgroup.oom_kills()[1] == "/proc/vmstat"


def test_a_container_that_sees_only_its_own_group_finds_it_at_the_root(tmp_path: Path) -> None:
    group_v2(tmp_path / "mount", "max")
    group = memory_group("0::/kubepods/pod1/abc\n", tmp_path / "mount")
    assert group is not None
    assert group.limit() is None


def test_version_1_is_read_where_memory_is_its_controller(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (folder / "memory.usage_in_bytes").write_text(f"{2 * GIB}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {GIB}\n")
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    group = memory_group("9:name=systemd:/\n4:memory:/job\n0::/\n", tmp_path)
    assert group is not None
    assert (group.limit(), group.used(), group.oom_kills()) == (None, GIB, 4)


def test_without_control_groups_there_is_none(tmp_path: Path) -> None:
    assert memory_group("0::/\n", tmp_path) is None


def test_the_cpu_reads_as_a_device_does() -> None:
    probe = CpuProbe()
    reading = probe.read()
    assert reading.used_mib is not None
    assert probe.info.total_mib is not None
    assert 0 < reading.used_mib <= probe.info.total_mib <= psutil.virtual_memory().total / MIB
    assert reading.utilization_pct is not None
    assert (reading.processes, reading.power_w) == (None, None)
    assert (probe.memory_by_pid_mib([os.getpid(), 2**22 + 1]) or {}).keys() == {os.getpid()}
    assert probe.oom_events() >= 0
    others = neighbours_on(probe, [os.getpid()])
    assert others.mib is not None
    assert others.mib < reading.used_mib + 1024
    assert others.pids == frozenset(), "the list would be the machine's"


def test_our_own_load_on_the_cpu_is_not_told_as_the_neighbours() -> None:
    probe = CpuProbe()
    ended = time.process_time() + 0.1
    while time.process_time() < ended:
        pass
    others = neighbours_on(probe, [os.getpid()])
    assert (others.utilization_pct, others.as_dict()["utilization_pct"]) == (None, None)
    assert others.mib is not None


def test_the_cpu_is_as_busy_as_psutil_says_over_the_same_stretch() -> None:
    probe = CpuProbe()
    psutil.cpu_percent()
    ended = time.process_time() + 0.5
    while time.process_time() < ended:
        pass
    assert probe.read().utilization_pct == pytest.approx(psutil.cpu_percent(), abs=5)


@pytest.mark.parametrize(
    ("after", "busy_pct"),
    [("cpu  150 20 80 1080 50 6 4 10 120 3", 50.0), ("cpu  100 10 50 1000 30 5 5 0 90 0", 0.0), ("cpu  100 10 50 1080 50 5 5 0 90 0", 0.0)],
)
def test_ticks_waiting_for_a_disk_are_idle_and_those_of_guests_count_once(monkeypatch: pytest.MonkeyPatch, after: str, busy_pct: float) -> None:
    """Columns of proc(5): user nice system idle iowait irq softirq steal guest guest_nice; the second case is a reading within the same tick."""
    before = "cpu  100 10 50 1000 30 5 5 0 90 0"
    lines = {"/proc/stat": [before, after], "/proc/meminfo": ["MemAvailable: 1024 kB"]}
    monkeypatch.setattr(cpu, "head", lambda path: f"{lines[path].pop(0)}\ncpu0 1 1 1 1 1 1 1 1 1 1\n".encode())
    assert CpuProbe().read().utilization_pct == busy_pct


def test_a_window_on_the_cpu_has_the_services_memory_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = threading.Event()
    with DeviceSampler(CpuProbe(), {"vllm": lambda: [os.getpid()]}, observe=lambda _moment: noted.set()) as sampler:
        assert noted.wait(10)
    window = sampler.window()
    assert (window.peak_service_mib["vllm"] or 0.0) > 10
    assert window.unchecked == (), "of the CPU nothing is missing"
    assert (window.energy_j, window.invalid) == (None, None)
