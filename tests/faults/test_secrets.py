"""A real run that is given secrets in every place leaves none in a file or a process list, and nothing of a local Ray, also after a kill."""

from __future__ import annotations

import base64
import contextlib
import json
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.faults.test_driver import SETTINGS, Driver, driver  # noqa: F401 - a fixture
from tune_gpu.config.loader import find_space

pytestmark = pytest.mark.ray

SECRETS = {
    "HF_TOKEN": "the hub's \"token\" with\\quotes",
    "WANDB_KEY": "f00dfeedf00dfeed" * 3,
    "TEAM_PASSWORD": "pass: #word / & 100% 'of it'",
    "SIGNING_KEY": "-----BEGIN SIGNING-----\nMIIEabcdefghijkl\nmnopqrstuvwxyz01\n-----END SIGNING-----",
    "CALLBACK_URL": "http://someone:c4llback-s3cret@127.0.0.1:9/x",
}
WHOLE = [*list(SECRETS.values())[:3], "MIIEabcdefghijkl", "c4llback-s3cret"]
WRITINGS = {written.encode() for secret in WHOLE for written in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], secret.replace("'", "''"), base64.b64encode(secret.encode()).decode())}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """Of the shipped one, with a secret in each place that a setting has for one."""
    content = yaml.safe_load(find_space("spica_gpu_allocation").read_text())
    vllm = content.setdefault("services", {}).setdefault("vllm", {})
    vllm["env"] = {"WANDB_KEY": SECRETS["WANDB_KEY"], "CALLBACK_URL": SECRETS["CALLBACK_URL"], "NOTE": f"beside {SECRETS['TEAM_PASSWORD']}"}
    vllm["extra_args"] = {**vllm.get("extra_args", {}), "hf-token": SECRETS["HF_TOKEN"]}
    content["services"].setdefault("whisper", {})["env"] = {"SIGNING_KEY": SECRETS["SIGNING_KEY"]}
    content["ray"] = {"runtime_env": {"env_vars": {"SIGNING_KEY": SECRETS["SIGNING_KEY"], "HF_TOKEN": SECRETS["HF_TOKEN"]}}}
    path = tmp_path / "given" / "space.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(content))
    return path


class ProcessLists:
    """Every command line on the machine, taken over and over."""

    def __init__(self) -> None:
        self.leaked: set[bytes] = set()
        self.taken = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take)

    def _take(self) -> None:
        while not self._stop.wait(0.02):
            for command in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.leaked |= {command.parent.name.encode() + b": " + found for found in WRITINGS if found in command.read_bytes()}
            self.taken += 1

    def __enter__(self) -> ProcessLists:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def leaks(*folders: Path) -> list[tuple[str, bytes]]:
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):  # sockets, and what ends meanwhile
            if path.is_file():
                content = path.read_bytes()
                found += [(str(path), written) for written in WRITINGS if written in content]
    return found


def sessions() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("tg-ray-*"))


def failure() -> str:
    return " ".join([*SECRETS.values(), json.dumps(SECRETS), repr(SECRETS), *(base64.b64encode(value.encode()).decode() for value in SECRETS.values())])


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    yield {**SECRETS, "NOTE": "beside it", "CHEAP_FAILURE": failure()}
    assert sessions() == []


def test_no_file_and_no_process_list_of_a_run_holds_a_secret(driver: Driver, space: Path, environment: dict[str, str]) -> None:  # noqa: F811
    settings = [str(space), "--trust", *(setting for setting in SETTINGS if "dashboard" not in setting), "confirm.enabled=false", "ray.max_retries=1"]
    with ProcessLists() as lists:
        driver.start(settings=settings, **environment)
        for moment in ("g0-c1", "g1-c1"):
            driver.wait_for(moment)
            [session] = sessions()
            assert stat.S_IMODE(session.stat().st_mode) == 0o700
            assert leaks(session) == []
        assert driver.end() == 0, driver.output
    assert lists.taken > 10
    assert lists.leaked == set()
    failed = [line for line in driver.lines() if line["status"] != "ok"]
    assert failed
    assert all("<redacted>" in line["failure"]["evidence"] for line in failed), "the evidence is there"
    assert len(list(driver.folder.rglob("*"))) > 20
    assert leaks(driver.folder) == []
    assert not any(written.decode() in driver.output for written in WRITINGS)
    driver.check_nothing_is_left()


def test_what_a_killed_run_leaves_of_ray_is_removed_and_it_goes_on(driver: Driver, space: Path, environment: dict[str, str]) -> None:  # noqa: F811
    driver.start(settings=[str(space), "--trust", *SETTINGS, "confirm.enabled=false"], **environment)
    driver.wait_for("g0-c1")
    [session] = sessions()
    assert driver.process is not None
    driver.process.kill()
    driver.end()
    driver.check_nothing_is_left()
    psutil.wait_procs([process for process in psutil.process_iter() if _names(process, session)], timeout=40)
    assert not session.exists()
    driver.start("--resume", driver.run_id(), "--trust", settings=[], **{name: value for name, value in environment.items() if name != "WANDB_KEY"})
    assert driver.end() == 2, "a secret that is not there is asked for"
    assert "Set the environment variable WANDB_KEY" in driver.output
    driver.start("--resume", driver.run_id(), "--trust", settings=[], **environment)
    assert driver.end() == 0, driver.output
    assert leaks(driver.folder) == []
    driver.check_nothing_is_left()


def _names(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return str(folder) in process.cmdline()
    return False
