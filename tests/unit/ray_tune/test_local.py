"""A local Ray's folder and token are its user's alone and go with the run, and its secrets stand in no file of it."""

from __future__ import annotations

import os
import select
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray  # noqa: F401 - its import sets variables

from tune_gpu.common.errors import UserError
from tune_gpu.ray_tune.local import PrivateFolder, own_environment, parted, private_files

_OWNER = """
import subprocess, sys, time
from tune_gpu.ray_tune.local import PrivateFolder
folder = PrivateFolder()
writer = subprocess.Popen([sys.executable, "-S", "-c", "import os, sys, time\\nwhile True: os.makedirs(sys.argv[1][6:] + '/logs', exist_ok=True); time.sleep(0.01)", f"--dir={folder.path}"],
                          start_new_session=True)
print(folder.path, writer.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def short_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_private_folder_and_its_token_are_the_users_alone() -> None:
    folder = PrivateFolder()
    try:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.token.stat().st_mode) == 0o600
        assert len(folder.token.read_text()) == 64
        assert len(f"{folder.of_ray}/session_2026-11-30_11-11-06_702238_4194304/sockets/plasma_store") < 107
    finally:
        folder.close()
    assert not folder.path.exists()


def test_two_rays_have_different_tokens() -> None:
    folders = [PrivateFolder(), PrivateFolder()]
    tokens = {folder.token.read_text() for folder in folders}
    for folder in folders:
        folder.close()
    assert len(tokens) == 2


def test_the_folder_goes_with_an_owner_that_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    path, writer = owner.stdout.readline().split()
    [reaper] = [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_reaper_of(name, path)]
    handle = os.pidfd_open(reaper)
    owner.kill()
    owner.communicate()
    assert select.select([handle], [], [], 40)[0], "the reaper ends"
    os.close(handle)
    assert not Path(path).exists()
    assert not Path(f"/proc/{writer}").exists() or Path(f"/proc/{writer}/stat").read_text().split()[2] == "Z", "what wrote into it has ended"


def _is_reaper_of(name: str, path: str) -> bool:
    try:
        command = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return path.encode() in command and any(part.endswith(b"reaper.py") for part in command)


def test_a_temporary_folder_too_deep_for_sockets_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    folder = PrivateFolder()
    folder.close()
    assert len(str(folder.path)) <= 38
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"TMPDIR=.*too long for Ray's sockets"):
        PrivateFolder()


def test_the_environment_is_as_before_after_a_local_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-a-cluster")
    monkeypatch.setenv("HF_TOKEN", "the-users")
    monkeypatch.delenv("WANDB_KEY", raising=False)
    (tmp_path / "token").write_text("a" * 64)
    before = dict(os.environ)
    with own_environment(tmp_path / "token", {"HF_TOKEN": "the-runs", "WANDB_KEY": "the-runs"}):
        assert os.environ["HF_TOKEN"] == os.environ["WANDB_KEY"] == "the-runs"
        assert "RAY_AUTH_TOKEN" not in os.environ, "it would come before the file"
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert dict(os.environ) == before


def test_files_made_within_the_block_are_the_users_alone(tmp_path: Path) -> None:
    with private_files():
        subprocess.run(["touch", str(tmp_path / "inside")], check=True)
    (tmp_path / "outside").touch()
    assert stat.S_IMODE((tmp_path / "inside").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) != 0o600


def test_secrets_of_the_runtime_environment_are_parted_from_the_rest() -> None:
    given = {"working_dir": ".", "env_vars": {"HF_TOKEN": "t", "PLAIN": "p", "PROXY": "http://u:s3cret@h"}}
    shown, hidden = parted(given)
    assert shown == {"working_dir": ".", "env_vars": {"PLAIN": "p"}}
    assert hidden == {"HF_TOKEN": "t", "PROXY": "http://u:s3cret@h"}
    assert parted({}) == ({}, {})
