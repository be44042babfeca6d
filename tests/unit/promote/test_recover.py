"""The command itself is interrupted, killed or loses its terminal in the middle; what it leaves is put back, then or at the next start."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.made_run import FAST, RUN_ID, SLOW
from tests.unit.promote.test_apply import UNITS, Place, wait_until
from tests.unit.promote.test_apply import place as place
from tests.unit.promote.test_command import Desk
from tests.unit.promote.test_command import desk as desk
from tune_gpu.cli.main import main
from tune_gpu.common.errors import UserError
from tune_gpu.promote import recovery_unit
from tune_gpu.promote.apply import Deployer, folder_of, target_of
from tune_gpu.promote.installed import Installation
from tune_gpu.promote.supervisor import ProcessSupervisor


class Killed(BaseException):
    """Stands for a power cut: nothing of the program runs any more."""


def begun(desk: Desk, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """`--apply` of an engine that answers too slowly to end by itself, once that engine runs."""
    desk.written(RUN_ID, "services.vllm.extra_args={little_delay_s: 60}")
    command = [sys.executable, "-m", "tune_gpu.cli.main", "promote", RUN_ID, "--apply", *arguments, *desk.overrides]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    supervisor = ProcessSupervisor(desk.root / "etc" / "supervised")
    wait_until(lambda: supervisor.is_running(UNITS[1]) or process.poll() is not None)
    assert process.poll() is None
    return process


def status(desk: Desk) -> str:
    return CliRunner().invoke(main, ["status", *desk.overrides[:2]]).output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_puts_back_what_was_there(desk: Desk, number: signal.Signals) -> None:
    process = begun(desk, stdout=subprocess.PIPE)
    process.send_signal(number)
    output = process.communicate()[0].decode()
    assert process.returncode == 130, output
    assert "interrupted; the deployment is as it was before" in output
    assert not (desk.root / "etc" / "vllm.yaml").exists()
    assert not [unit for unit in UNITS if ProcessSupervisor(desk.root / "etc" / "supervised").is_running(unit)]
    assert f"the files from before promote are in force (run {RUN_ID} was rolled back)" in status(desk)


def test_under_nohup_a_terminal_that_goes_changes_nothing(desk: Desk) -> None:
    process = begun(desk, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.poll() is None
    process.terminate()
    process.communicate()
    assert process.returncode == 130


def test_a_pipe_that_nobody_reads_any_more_does_not_stop_a_rollback(desk: Desk) -> None:
    process = begun(desk, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.terminate()
    process.wait()
    assert not (desk.root / "etc" / "vllm.yaml").exists()
    last = Installation(desk.root / "etc")
    assert last.peek() is None


def test_after_a_kill_status_and_every_command_name_recover(desk: Desk) -> None:
    process = begun(desk, stdout=subprocess.PIPE)
    assert f"the apply of run {RUN_ID} is in progress (process {process.pid})" in status(desk)
    process.kill()
    process.communicate()
    assert f"the apply of run {RUN_ID} was interrupted: run tune-gpu promote --recover" in status(desk)
    rows = json.loads(CliRunner().invoke(main, ["status", "--json", *desk.overrides[:2]]).output)
    assert [row["deployment"] for row in rows] == ["interrupted"]
    for arguments in ([RUN_ID], [RUN_ID, "--apply"]):
        refused = desk.promote(*arguments)
        assert (refused.exit_code, "was interrupted. Run tune-gpu promote --recover first" in refused.output) == (2, True), refused.output
    recovered = desk.promote("--recover")
    assert (recovered.exit_code, f"recovered: the files from before {RUN_ID} are in force again" in recovered.output) == (0, True), recovered.output
    assert not (desk.root / "etc" / "vllm.yaml").exists()
    assert not [unit for unit in UNITS if ProcessSupervisor(desk.root / "etc" / "supervised").is_running(unit)]
    again = desk.promote("--recover")
    assert (again.exit_code, "nothing to recover: no apply was interrupted" in again.output) == (0, True), again.output


def test_where_nothing_was_installed_there_is_nothing_to_recover(desk: Desk) -> None:
    ended = desk.promote("--recover")
    assert (ended.exit_code, "nothing to recover" in ended.output) == (0, True), ended.output
    assert not (desk.root / "etc").exists(), "and no folder is made for it"
    assert desk.promote("--recover", RUN_ID).exit_code == 2
    assert desk.promote("--recover", "--rollback").exit_code == 2


def test_nothing_but_the_target_is_needed_to_put_things_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recordings for voice turns may be gone by then."""
    desk.written(RUN_ID)
    assert desk.promote(RUN_ID, "--apply").exit_code == 0

    def gone(*_: object) -> None:
        raise UserError("workload.audio.source=packaged: no clips")

    monkeypatch.setattr("tune_gpu.promote.live_turns.load_inputs", gone)
    undone = desk.promote("--rollback")
    assert undone.exit_code == 0, undone.output


@pytest.mark.parametrize("place", ["systemd"], indirect=True)
def test_a_boot_after_a_power_cut_puts_the_files_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.apply("run-1", SLOW) is None
    units, target = place.root / "units", target_of(place.config.promote)
    before = {path: path.read_text() for path in units.rglob("*.conf")}
    real = Installation.intend

    def cut(self: Installation, step: str) -> None:
        real(self, step)
        if step == "start vllm":
            raise Killed

    def nothing(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Installation, "intend", cut)
        patch.setattr("tune_gpu.promote.restore.Restorer.put_back", nothing)
        with pytest.raises(Killed):
            place.apply("run-2", FAST)
    for unit in UNITS:
        target.stop(unit)
    (units / "calls").unlink()
    recovery = units / recovery_unit.NAME
    assert (units / "multi-user.target.wants" / recovery_unit.NAME).resolve() == recovery, "the boot wants it"
    assert "Before=whisper.service vllm.service" in recovery.read_text()
    command = next(line.removeprefix("ExecStart=") for line in recovery.read_text().splitlines() if line.startswith("ExecStart="))
    done = subprocess.run(shlex.split(command), cwd="/", capture_output=True, text=True, env={**os.environ, "HOME": "/"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_text() for path in units.rglob("*.conf")} == before
    assert "base" in place.installed("whisper.yaml")
    calls = [line.split()[0] for line in (units / "calls").read_text().splitlines()]
    assert calls == ["daemon-reload"], "the boot starts the services itself, after this"
    assert not recovery.exists()
    assert not (units / "multi-user.target.wants").exists()
    last = Installation(folder_of(place.config.promote)).peek()
    assert last is not None
    assert last.run_id == "run-1"


def test_a_boot_recovers_though_the_systems_settings_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "promote.yaml").write_text("promote: [half")
    monkeypatch.setattr("tune_gpu.promote.settings.SYSTEM_FILE", tmp_path / "promote.yaml")
    arguments = ["promote", "--recover", f"promote.install_dir={tmp_path / 'etc'}"]
    assert CliRunner().invoke(main, arguments).exit_code == 2
    booted = CliRunner().invoke(main, [*arguments, "--at-boot"])
    assert (booted.exit_code, "nothing to recover" in booted.output) == (0, True), booted.output


@pytest.mark.parametrize("place", ["systemd"], indirect=True)
def test_no_recovery_unit_stays_after_an_apply_or_a_rollback(place: Place) -> None:
    assert place.apply("run-1", SLOW) is None
    assert not list((place.root / "units").rglob(f"*{recovery_unit.NAME}"))
    place.deployer().rollback()
    assert not list((place.root / "units").rglob(f"*{recovery_unit.NAME}"))


def test_a_process_that_was_started_is_known_though_its_starter_was_killed(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("")
    spec = {"command": [sys.executable, "-S", "-c", "import time; time.sleep(600)"], "env_file": str(tmp_path / "env"), "cores": None}
    (tmp_path / "unit.json").write_text(json.dumps(spec))
    code = (
        "import os, subprocess, sys; from pathlib import Path; from tune_gpu.promote.supervisor import ProcessSupervisor\n"
        "real = subprocess.Popen\n"
        "def popen(*a, **k): real(*a, **k); os.kill(os.getpid(), 9)\n"
        "subprocess.Popen = popen\n"
        "ProcessSupervisor(Path(sys.argv[1])).start('unit')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    supervisor = ProcessSupervisor(tmp_path)
    assert supervisor.is_running("unit")
    supervisor.stop("unit")
    assert not supervisor.is_running("unit")


def test_a_rollback_without_room_to_begin_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.apply("run-1", SLOW) is None
    assert place.apply("run-2", FAST) is None

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tune_gpu.promote.restore.stage", full)
        with pytest.raises(Exception, match=r"No space left on device\. Nothing was changed"):
            Deployer.rollback(place.deployer())
    last = Installation(folder_of(place.config.promote)).peek()
    assert last is not None
    assert (last.run_id, str(last.status)) == ("run-2", "applied")
    assert "tiny.en" in place.installed("whisper.yaml")


def test_of_a_log_of_any_size_only_the_end_is_read(tmp_path: Path) -> None:
    with (tmp_path / "no.service.log").open("wb") as log:
        log.truncate(2**40)
        log.seek(0, os.SEEK_END)
        log.write(b"\nno room on the device\n")
    assert ProcessSupervisor(tmp_path).failure("no.service") == "no.service has ended: no room on the device"
