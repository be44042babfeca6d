"""Root promotes a run that came from somebody else: what was not reviewed is not installed, and nothing leads root elsewhere."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.made_run import EXPERIMENT, RUN_ID, made_run
from tests.support.runs import edit
from tests.unit.promote.compared import write_comparison
from tests.unit.promote.test_command import Desk, desk  # noqa: F401
from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.checks import check_config
from tune_gpu.promote import settings as promote_settings
from tune_gpu.promote.bundle import write_bundle
from tune_gpu.promote.ownership import foreign
from tune_gpu.promote.settings import ignored, trusted_settings
from tune_gpu.promote.subject import Subject, kept_of, subject_of
from tune_gpu.promote.supervisor import ProcessSupervisor

SOMEBODY = 54321
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


def give_away(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, SOMEBODY, SOMEBODY, follow_symlinks=False)


def subject(desk: Desk) -> Subject:  # noqa: F811
    return subject_of(RUN_ID, desk.overrides, None, None, lambda _line: None, check_config)


def nothing_installed(desk: Desk) -> bool:  # noqa: F811
    return not list((desk.root / "etc").rglob("*.yaml"))


def forge(desk: Desk) -> None:  # noqa: F811
    """A run edited after the review, so that everything in it agrees with everything else."""
    for name in ("config.yaml", "comparison.jsonl"):
        path = desk.root / EXPERIMENT / RUN_ID / name
        path.write_text(path.read_text().replace("max_num_seqs: 4", "max_num_seqs: 256").replace('"max_num_seqs": 4', '"max_num_seqs": 256'))


def test_apply_without_a_review_installs_nothing(desk: Desk) -> None:  # noqa: F811
    write_comparison(made_run(desk.root))
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    assert "nothing was written for review" in refused.output
    assert "soak" not in refused.output
    assert not (desk.root / "promotions").exists()
    assert nothing_installed(desk)


def test_a_run_that_was_edited_after_the_review_is_refused_by_line(desk: Desk) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    forge(desk)
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    assert "vllm.yaml: line" in refused.output
    assert "was reviewed as 'max-num-seqs: 4', now it would be 'max-num-seqs: 256'" in refused.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, "nor is it written anew"
    assert nothing_installed(desk)


def test_a_review_that_was_forged_with_the_run_lacks_the_expected_hash(desk: Desk) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    reviewed = subject(desk).bundle.sha256
    forge(desk)
    other = subject(desk)
    write_bundle(folder, other.bundle, other.bundle, other.about)
    refused = desk.promote(RUN_ID, "--apply", "--expect", reviewed)
    assert refused.exit_code == 2, refused.output
    assert f"--expect {reviewed}: the bundle's sha256 is {other.bundle.sha256}" in refused.output
    assert nothing_installed(desk)


def test_the_review_prints_the_hash_that_apply_may_demand(desk: Desk) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    again = desk.promote(RUN_ID)
    assert (again.exit_code, "soaked at" in again.output) == (0, True), again.output
    (message,) = [line.rpartition(": ")[2] for line in again.output.splitlines() if line.startswith("sha256 of the bundle: ")]
    assert message == subject(desk).bundle.sha256 == json.loads((folder / "manifest.json").read_text())["bundle_sha256"]
    applied = desk.promote(RUN_ID, "--apply", "--expect", message)
    assert applied.exit_code == 0, applied.output
    alone = desk.promote(RUN_ID, "--expect", message)
    assert (alone.exit_code, "--expect" in alone.output) == (2, True)


@pytest.mark.parametrize("change", ["target", "units", "destination", "content"])
def test_the_hash_is_of_files_destinations_target_and_units(desk: Desk, change: str) -> None:  # noqa: F811
    write_comparison(made_run(desk.root))
    first = subject(desk).bundle.sha256
    assert subject(desk).bundle.sha256 == first, "whenever it is computed"
    desk.overrides += {
        "target": ["promote.target=systemd"],
        "units": ["promote.vllm.unit=other.service"],
        "destination": [f"promote.install_dir={desk.root}/elsewhere"],
        "content": ["promote.served_model_name=other"],
    }[change]
    assert subject(desk).bundle.sha256 != first


def lead_out(root: Path, manifest: dict[str, Any]) -> None:
    manifest["files"]["vllm.yaml"]["destination"] = str(root / "cron.d" / "vllm")


def take_out(_root: Path, manifest: dict[str, Any]) -> None:
    del manifest["files"]["vllm.env"]


def put_in(root: Path, manifest: dict[str, Any]) -> None:
    manifest["files"]["../../secret"] = {"destination": str(root / "x"), "sha256": "0"}


def other_units(_root: Path, manifest: dict[str, Any]) -> None:
    manifest["units"] = ["ssh.service"]


def other_hash(_root: Path, manifest: dict[str, Any]) -> None:
    manifest["bundle_sha256"] = "0" * 64


def other_before(root: Path, manifest: dict[str, Any]) -> None:
    manifest["before"] = {str(root / "x"): None}


def no_mapping(_root: Path, manifest: dict[str, Any]) -> None:
    manifest["files"] = ["vllm.yaml"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lead_out, 'vllm.yaml was meant for ".*cron.d/vllm", but now for .*etc/vllm.yaml'),
        (take_out, "vllm.env would be written now, but is not listed"),
        (put_in, r"\.\./\.\./secret\" is listed, but would not be written now"),
        (other_units, r'units are \["ssh.service"\], now'),
        (other_hash, "bundle_sha256 differs"),
        (other_before, "lists other files than would be installed"),
        (no_mapping, "vllm.yaml would be written now, but is not listed"),
    ],
)
def test_a_manifest_decides_nothing(desk: Desk, spoil: Callable[[Path, dict[str, Any]], None], message: str) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    edit(folder / "manifest.json", lambda manifest: spoil(desk.root, manifest))
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refused.output)
    assert nothing_installed(desk)
    assert not (desk.root / "cron.d").exists()


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"files": {"a\\u001b[2J": 1}, "created_at": "\\u001b[2J"}'])
def test_a_manifest_that_is_none_is_refused_and_may_be_written_anew(desk: Desk, content: str) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    (folder / "manifest.json").write_text(content)
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    assert "\x1b" not in refused.output, "nothing of it steers a terminal"
    assert kept_of(subject(desk)) is None


@pytest.mark.parametrize("name", ["changes.diff", "gate.json"])
def test_what_was_read_in_the_review_must_still_be_there(desk: Desk, name: str) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    (folder / name).write_text("nothing changes\n")
    refused = desk.promote(RUN_ID, "--apply")
    assert (refused.exit_code, f"{name} has changed since the review" in refused.output) == (2, True), refused.output
    assert nothing_installed(desk)


def test_what_is_installed_is_what_was_compared_not_what_was_put_there(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)

    def swapped(*given: Any) -> Any:
        found = compared(*given)
        (folder / "vllm.yaml").write_text("model: somebody-elses\n")
        edit(folder / "manifest.json", lambda manifest: lead_out(desk.root, manifest))
        return found

    from tune_gpu.cli import promote as command

    compared = command.reviewed
    monkeypatch.setattr(command, "reviewed", swapped)
    applied = desk.promote(RUN_ID, "--apply")
    assert applied.exit_code == 0, applied.output
    assert "somebody-elses" not in (desk.root / "etc" / "vllm.yaml").read_text()
    assert not (desk.root / "cron.d").exists()


def test_a_runs_own_promote_settings_are_ignored_and_said(desk: Desk) -> None:  # noqa: F811
    own = ["promote.vllm.unit=ssh.service", "promote.min_gain_pct=0", "confirm.tolerances.wer=9", "promote.vllm.key_env=AWS_SECRET_ACCESS_KEY"]
    desk.written(RUN_ID, *own)
    found = subject(desk)
    assert found.bundle.units == ("whisper.service", "vllm.service")
    assert found.run.config.promote.min_gain_pct == 10.0
    assert found.run.config.confirm.tolerances["wer"] == 0.01
    applied = desk.promote(RUN_ID, "--apply")
    assert applied.exit_code == 0, applied.output
    (message,) = [line for line in applied.output.splitlines() if line.startswith("ignored: ")]
    assert all(setting in message for setting in own[:2])
    assert "confirm.tolerances" in message
    assert "install_dir" not in message, "what the command line says as well is no news"


@pytest.fixture
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "promote.yaml"
    monkeypatch.setattr(promote_settings, "SYSTEM_FILE", path)
    return path


def test_the_systems_file_says_how_to_promote_and_the_command_line_more(system_file: Path) -> None:
    assert trusted_settings([]).promote.min_gain_pct == 10.0, "there is none"
    system_file.write_text("promote: {min_gain_pct: 20, vllm: {unit: llm.service}}\nconfirm: {tolerances: {wer: 0.02}}\n")
    found = trusted_settings(["promote.min_gain_pct=30"])
    assert (found.promote.min_gain_pct, found.promote.vllm.unit, found.confirm.tolerances["wer"]) == (30.0, "llm.service", 0.02)
    assert found.promote.vllm.key_env == "VLLM_API_KEY", "what the file leaves out stays"
    assert ignored(ExperimentConfig(), found) == [], "a run that says nothing has nothing ignored"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {vllm: {model: x}}\n", r"promote\.yaml: services: not allowed in this file"),
        ("promote: {speed: 1}\n", r"promote\.yaml: promote\.speed: no such key"),
        ("promote: {min_gain_pct: much}\n", r"promote\.yaml: promote\.min_gain_pct"),
        ("promote: [", "not valid YAML"),
    ],
)
def test_a_systems_file_that_is_none_is_one_line(system_file: Path, text: str, message: str) -> None:
    system_file.write_text(text)
    with pytest.raises(UserError, match=message):
        trusted_settings([])


def test_a_settings_file_that_others_may_write_is_refused(system_file: Path) -> None:
    system_file.write_text("promote: {min_gain_pct: 0}\n")
    system_file.chmod(0o666)
    with pytest.raises(UserError, match=r"may be written by others \(mode 0666\)"):
        trusted_settings([])


@AS_ROOT
def test_a_settings_file_of_somebody_else_is_refused_also_through_a_link(system_file: Path) -> None:
    theirs = system_file.with_name("theirs.yaml")
    theirs.write_text("promote: {min_gain_pct: 0}\n")
    give_away(theirs)
    system_file.symlink_to(theirs)
    with pytest.raises(UserError, match=f"belongs to user {SOMEBODY}"):
        trusted_settings([])
    with pytest.raises(UserError, match=f"belongs to user {SOMEBODY}"):
        trusted_settings([], str(theirs))


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: there is no such file. Give a YAML file of settings"):
        trusted_settings([], str(tmp_path / "none.yaml"))


@AS_ROOT
def test_an_ordinary_user_is_told_of_settings_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go on without them would be to review another deployment."""
    for folder in (tmp_path, *tmp_path.parents):  # the temporary folder itself may be private, too
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(0o755)
    own = tmp_path / "etc"
    own.mkdir(mode=0o700)
    monkeypatch.setattr(promote_settings, "SYSTEM_FILE", own / "promote.yaml")
    assert as_somebody(lambda: foreign(own)) == "None", "what is root's is trusted"
    assert as_somebody(lambda: trusted_settings([])) == (
        f"{own}/promote.yaml: Permission denied. Run promote as a user that may read it, or give --settings FILE."
    )


def as_somebody(act: Callable[[], Any]) -> str:
    """What it returns, or what is wrong, in a child of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(SOMEBODY)
            os.setuid(SOMEBODY)
            answer = str(act())
        except BaseException as error:
            answer = str(error)
        os.write(writing, answer.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@AS_ROOT
def test_a_review_in_a_folder_of_somebody_else_needs_the_expected_hash(desk: Desk) -> None:  # noqa: F811
    desk.written(RUN_ID)
    found = subject(desk)
    assert kept_of(found) is not None
    give_away(desk.root / "promotions")
    assert kept_of(found) is None, "nothing shows that it was ever soaked"
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    assert f"belongs to user {SOMEBODY}). Give --expect" in refused.output
    assert nothing_installed(desk)
    applied = desk.promote(RUN_ID, "--apply", "--expect", found.bundle.sha256)
    assert applied.exit_code == 0, applied.output
    audit = desk.root / "etc" / "promotions" / "audit.jsonl"
    assert (audit.stat().st_uid, (desk.root / "promotions" / "audit.jsonl").exists()) == (0, False)


@AS_ROOT
@pytest.mark.parametrize("folder", ["etc", "etc/.tune-gpu", "etc/promotions", "etc/supervised"])
def test_nothing_is_installed_into_a_folder_of_somebody_else(desk: Desk, folder: str) -> None:  # noqa: F811
    desk.written(RUN_ID)
    (desk.root / folder).mkdir(parents=True)
    os.chown(desk.root / folder, SOMEBODY, SOMEBODY)
    refused = desk.promote(RUN_ID, "--apply")
    assert refused.exit_code == 2, refused.output
    assert f"{desk.root / folder} belongs to user {SOMEBODY}" in refused.output
    assert nothing_installed(desk)


@AS_ROOT
def test_a_state_that_somebody_else_wrote_is_not_rolled_back_to(desk: Desk) -> None:  # noqa: F811
    desk.written(RUN_ID)
    assert desk.promote(RUN_ID, "--apply").exit_code == 0
    target = desk.root / "cron.d" / "job"
    state = desk.root / "etc" / ".tune-gpu" / "state.json"
    edit(state, lambda content: content["changes"][0]["before"].update({str(target): "* * * * * root sh\n"}))
    os.chown(state, SOMEBODY, SOMEBODY)
    refused = desk.promote("--rollback")
    assert (refused.exit_code, f"belongs to user {SOMEBODY}" in refused.output) == (2, True), refused.output
    assert not target.exists()
    os.chown(state, 0, 0)
    edit(state, lambda content: content["changes"][0]["before"].pop(str(target)))
    assert desk.promote("--rollback").exit_code == 0


@pytest.mark.parametrize("link", ["promotions", f"promotions/{EXPERIMENT}", f"promotions/{EXPERIMENT}/{RUN_ID}"])
def test_a_linked_folder_among_the_artifacts_leads_nowhere(desk: Desk, link: str) -> None:  # noqa: F811
    """A gate that refuses writes its record, and used to follow."""
    write_comparison(made_run(desk.root), confirmed=False, confirmed_why="the budget ended")
    elsewhere = desk.root / "cron.d"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("root's\n")
    (desk.root / link).parent.mkdir(parents=True, exist_ok=True)
    (desk.root / link).symlink_to(elsewhere)
    refused = desk.promote(RUN_ID)
    assert refused.exit_code == 2, refused.output
    assert f"a symbolic link, which is not followed here: '{desk.root / link}'" in refused.output
    assert [path.name for path in elsewhere.iterdir()] == ["manifest.json"]
    assert (elsewhere / "manifest.json").read_text() == "root's\n"


@pytest.mark.parametrize("name", ["before", "vllm.yaml", "changes.diff", "manifest.json", "gate.json"])
def test_links_in_the_review_are_neither_written_through_nor_read(desk: Desk, name: str) -> None:  # noqa: F811
    folder = desk.written(RUN_ID)
    treasure = desk.root / "shadow"
    treasure.write_text("root's\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(treasure)
    found = subject(desk)
    if name not in ("before", "gate.json"):
        refused = desk.promote(RUN_ID, "--apply")
        assert (refused.exit_code, name in refused.output) == (2, True), refused.output
        assert "root's" not in refused.output
    if name != "gate.json":
        write_bundle(folder, found.bundle, found.bundle, found.about)
    assert treasure.read_text() == "root's\n"


def test_a_rollback_script_in_the_review_is_nobodys(desk: Desk) -> None:  # noqa: F811
    """What root may run by hand lies where only who installs writes."""
    folder = desk.written(RUN_ID)
    (folder / "rollback.sh").write_text("#!/bin/sh\ntouch /tmp/owned\n")
    (folder / "before").mkdir()
    assert desk.promote(RUN_ID, "--apply").exit_code == 0
    script = desk.root / "etc" / "promotions" / RUN_ID / "rollback.sh"
    assert "owned" not in script.read_text()
    assert f"rm -f {desk.root / 'etc' / 'vllm.yaml'}" in script.read_text()
    assert script.stat().st_mode & 0o777 == 0o700
    assert foreign(script) is None
    assert desk.promote("--rollback").exit_code == 0


def test_a_folder_is_foreign_by_any_of_its_parents(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert foreign(inner) is None
    assert foreign(inner / "not" / "there") is None
    (tmp_path / "a").chmod(0o777)
    assert f"{tmp_path / 'a'} may be written by others" in str(foreign(inner / "not" / "there"))
    (tmp_path / "a").chmod(0o1777)
    assert foreign(inner) is None, "as /tmp: nobody may rename what is not his"
    assert foreign(tmp_path / "a") is not None, "but anybody may put his own in"
    (tmp_path / "a").chmod(0o775)
    os.chown(tmp_path / "a", -1, os.getegid())
    assert foreign(inner) is None
    if os.geteuid() == 0:
        os.chown(tmp_path / "a", -1, SOMEBODY)
        assert foreign(inner) is not None


def test_rollback_sh_takes_no_module_from_the_folder_where_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("open('ran', 'w')\n")
    [line] = ProcessSupervisor(tmp_path / "supervised").shell(["no.service"])
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, timeout=60)
    assert not (tmp_path / "ran").exists()


@AS_ROOT
def test_a_group_with_others_in_it_makes_a_folder_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is the user's first group, as it is where all users share one."""
    others = next(user.pw_gid for user in pwd.getpwall() if user.pw_gid != 0)
    os.chown(tmp_path, 0, others)
    tmp_path.chmod(0o775)
    monkeypatch.setattr(os, "getegid", lambda: others)
    assert "may be written by others" in str(foreign(tmp_path))
    nobodys = 54322
    os.chown(tmp_path, 0, nobodys)
    monkeypatch.setattr(os, "getegid", lambda: nobodys)
    assert foreign(tmp_path) is None
