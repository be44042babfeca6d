"""`tune-gpu doctor`: what fails says what to do; the machine under the tests is examined for real, a driver is made up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.fake_nvml import MIB, OTHER, FakeNvml, Frame
from tune_gpu.cli.doctor.cards import Card, Driver, check_driver, check_process_ids, read_driver
from tune_gpu.cli.doctor.machine import check_folders, check_limits, check_memory, check_ports
from tune_gpu.cli.main import main
from tune_gpu.services.faster_whisper.examine import check_libraries
from tune_gpu.services.findings import DoctorFinding, Level, Machine, fail
from tune_gpu.services.vllm.examine import check_build, check_cuda

CARD = Card("NVIDIA GeForce RTX 3060", 12288.0, 500.0, exclusive=False, mig=False)
DRIVER = Driver("550.54.14", (12, 4), (CARD,))


def by_name(findings: Iterable[DoctorFinding]) -> dict[str, DoctorFinding]:
    return {finding.check: finding for finding in findings}


class Nvml(FakeNvml):
    """With what only the doctor asks."""

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12040

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:
        return 3

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:
        raise self.NVMLError_NotSupported("Not Supported")


def test_this_machine_is_examined_and_every_failure_comes_with_advice(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["doctor", "--json", f"run.artifacts_dir={tmp_path}"])
    content = json.loads(ended.output)
    checks = {check["check"]: check for check in content["checks"]}
    assert ended.exit_code == (0 if content["healthy"] else 1)
    assert {"driver", "Ray", "vLLM", "faster-whisper", "vllm", "whisper", "ports", "memory", "artifacts: disk", "shared memory"} <= checks.keys()
    assert all(check["advice"] for check in content["checks"] if check["level"] == "fail")
    assert checks["Ray"]["level"] == "ok", "the tests run beside the Ray that is meant"
    text = CliRunner().invoke(main, ["doctor", f"run.artifacts_dir={tmp_path}"]).output
    assert all(check["check"] in text for check in content["checks"])


def test_a_failure_without_advice_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="needs advice"):
        fail("driver", "it is broken", "")


def test_an_unwritable_folder_fails_the_command_with_exit_code_1() -> None:
    ended = CliRunner().invoke(main, ["doctor", "run.artifacts_dir=/proc/nowhere"])
    assert ended.exit_code == 1
    assert "set run.artifacts_dir to a folder that this user can write" in ended.output


def test_the_driver_is_read_with_its_cuda_and_its_cards() -> None:
    found = read_driver(Nvml([Frame(used_mib=8000.0)]))
    assert (found.version, found.cuda, len(found.cards)) == ("550.54.14", (12, 4), 2)
    assert found.cards[0] == Card("NVIDIA GeForce RTX 3060", 12288.0, 8000.0, exclusive=True, mig=False)


def test_a_silent_driver_fails_and_no_card_at_all_is_a_note() -> None:
    silent = Driver(error="Driver/library version mismatch")
    (failed,) = check_driver(silent, [Path("/dev/nvidia0")])
    assert failed.level is Level.FAIL
    assert "Driver/library version mismatch" in failed.found
    (noted,) = check_driver(silent, [])
    assert noted.level is Level.NOTE
    assert "CPU" in noted.advice


def test_an_exclusive_card_fails_and_a_full_one_is_noted() -> None:
    """Exclusive: only one process may use it."""
    exclusive, full = Card("A", 1000.0, 10.0, True, False), Card("B", 1000.0, 900.0, False, True)
    found = by_name(check_driver(Driver("1", (12, 4), (exclusive, full, CARD)), []))
    assert (found["card 0"].level, found["card 1"].level, found["card 2"].level) == (Level.FAIL, Level.NOTE, Level.OK)
    assert found["card 0"].advice == "nvidia-smi -i 0 -c DEFAULT (as root)"


def test_a_device_file_that_may_not_be_opened_fails(tmp_path: Path) -> None:
    found = by_name(check_driver(DRIVER, [tmp_path / "nvidia0"]))  # not there: access(2) says no, as for a file of another's
    assert found["permissions"].level is Level.FAIL


@pytest.mark.parametrize(
    ("namespace", "pids", "level"),
    [
        ("pid:[4026531836]", {28290}, None),  # the machine itself
        ("pid:[4026532781]", {28290}, Level.FAIL),  # the host's ids: 28290 is nobody here
        ("pid:[4026532781]", {41}, Level.NOTE),
        ("pid:[4026532781]", set(), Level.NOTE),
    ],
)
def test_a_driver_that_uses_the_hosts_process_ids_is_reported(namespace: str, pids: set[int], level: Level | None) -> None:
    """It would make every service of a container count as on the wrong card."""
    nvml = Nvml([Frame(dict.fromkeys(pids, 100.0))])
    nvml.silent_on = {OTHER: nvml.NVMLError_NoPermission}
    found = list(check_process_ids(read_driver(nvml), namespace, lambda pid: pid == 41))
    assert [finding.level for finding in found] == ([] if level is None else [level])
    assert all("--pid=host" in finding.advice for finding in found)
    assert list(check_process_ids(Driver(error="no driver"), namespace, lambda _pid: False)) == []


@pytest.mark.parametrize(("torch", "level"), [("12.8", Level.OK), ("12.1", Level.OK), ("13.0", Level.FAIL), (None, Level.FAIL), ("", Level.FAIL)])
def test_torchs_cuda_is_compared_with_the_drivers(torch: str | None, level: Level) -> None:
    assert check_cuda(Machine("cuda", DRIVER.cuda), torch).level is level


def test_a_library_of_the_recogniser_that_is_not_found_fails() -> None:
    assert check_libraries(lambda name: f"/lib/{name}").level is Level.OK
    assert check_libraries(lambda _name: None).level is Level.FAIL


def test_a_cpu_build_of_vllm_beside_a_card_fails() -> None:
    assert check_build(Machine("cuda"), None, "0.32.0").level is Level.FAIL
    assert check_build(Machine("cpu"), None, None).level is Level.FAIL


def test_ports_that_are_all_taken_fail_and_a_taken_dashboard_is_a_note() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = by_name(check_ports([port, port], dashboard=port))
    assert found["ports"].level is Level.FAIL
    assert f"run.port_range=[{port}, {port}]" in found["ports"].found
    assert found["dashboard port"].level is Level.NOTE


def test_little_memory_a_full_disk_and_small_shared_memory_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (memory,) = check_memory(total_gib=8.0, free_gib=1.0)
    assert memory.level is Level.FAIL
    usage = SimpleNamespace(total=100 * MIB, free=1 * MIB, used=99 * MIB)
    monkeypatch.setattr("tune_gpu.cli.doctor.machine.shutil.disk_usage", lambda _path: usage)
    assert by_name(check_folders(tmp_path))["artifacts: disk"].level is Level.FAIL
    assert by_name(check_limits(tmp_path))["shared memory"].level is Level.FAIL


class Divided(Nvml):
    """As a user of one MIG instance meets it, in a container or outside: the whole card tells its mode and name, and not its memory."""

    def nvmlDeviceGetComputeMode(self, handle: str) -> int:
        return 0

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:
        return [1, 1]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        raise self.NVMLError_NoPermission("Insufficient Permissions")


def test_a_mig_card_is_not_a_broken_driver_and_needs_an_instance_named() -> None:
    read = read_driver(Divided([Frame()]))
    assert read.error == ""
    found = by_name(check_driver(read, []))["card 0"]
    assert (found.level, found.found) == (Level.NOTE, "NVIDIA GeForce RTX 3060, its memory is not reported, MIG")
    assert "CUDA_VISIBLE_DEVICES" in found.advice


def test_a_card_that_shares_the_hosts_memory_is_no_broken_driver() -> None:
    nvml = Nvml([Frame()], unsupported={"memory"})
    nvml.name = b"NVIDIA GB10"
    read = read_driver(nvml)
    assert (read.error, read.cards[0].name) == ("", "NVIDIA GB10")
    assert (read.cards[0].total_mib or 0.0) > 0
