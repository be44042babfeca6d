"""Names, lines and orders that systemd would take for something else are refused before anything is stopped."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_run import FAST, QUICK, SLOW
from tests.unit.promote.test_apply import SYSTEMD, Place, place  # noqa: F401
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.config.schema import PromoteSettings
from tune_gpu.config.texts import check_line, check_unit
from tune_gpu.promote.apply import folder_of, target_of
from tune_gpu.promote.loaded_units import analyze
from tune_gpu.promote.locks import units_locked
from tune_gpu.promote.render import services_of
from tune_gpu.promote.systemd import Systemd, _quoted


@pytest.mark.parametrize("unit", ["vllm.service", "vllm-1.service", "vllm@0.service", "a:b_c.d.service", "vllm\\x2dserver.service"])
def test_a_name_that_systemd_knows_is_taken(unit: str) -> None:
    check_unit("promote.vllm.unit", unit, of_systemd=True)


@pytest.mark.parametrize(
    "unit",
    ["", ".service", "-v.service", "a/b.service", "../x.service", "a..service", "a b.service", "a\n.service", "%n.service", "vllm@.service",
     "@x.service", "é.service", "a\x00.service", "a" * 248 + ".service", ".hidden.service", "a;b.service", "$a.service", "vllm.service "],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(unit: str) -> None:
    for of_systemd in (True, False):
        with pytest.raises(UserError, match=r"promote\.vllm\.unit="):
            check_unit("promote.vllm.unit", unit, of_systemd=of_systemd)


def test_a_name_without_its_ending_is_told_the_ending() -> None:
    with pytest.raises(UserError, match=r"promote\.vllm\.unit=vllm: .* Use vllm\.service\."):
        load_config("spica_gpu_allocation", [*QUICK, "promote.vllm.unit=vllm"], "cpu")
    check_unit("promote.vllm.unit", "vllm", of_systemd=False)


@given(st.text())
def test_what_is_taken_as_a_line_is_one_line_for_whoever_reads_it(value: str) -> None:
    try:
        check_line("key", value)
    except UserError:
        return
    assert len(f"{value}|".splitlines()) == 1
    assert "\0" not in value


def test_both_services_in_one_unit_are_refused() -> None:
    with pytest.raises(UserError, match=r"promote\.vllm\.unit=voice\.service: the same unit as Whisper's"):
        load_config("spica_gpu_allocation", [*QUICK, "promote.vllm.unit=voice.service", "promote.whisper.unit=voice.service"], "cpu")


@pytest.mark.parametrize("value", ["a\nExecStart=/bin/sh", "a\rb", "a\x0bb", "a\u2028b", "a\x00b"])
def test_a_line_break_gets_into_none_of_the_files(value: str) -> None:
    config = load_config("spica_gpu_allocation", QUICK, "cpu")
    for env in ({"KEY": value}, {f"KEY{value}": "1"}):
        services = replace(config.services, vllm=replace(config.services.vllm, env=env))
        with pytest.raises(UserError, match=r"services\.vllm\.env"):
            services_of(replace(config, services=services), FAST, "cpu")
    with pytest.raises(UserError, match="the winner's parameters"):
        services_of(config, FAST | {"whisper_cores": value}, "cpu")
    for name, promote in (
        ("command", replace(config.promote, vllm=replace(config.promote.vllm, command=["/bin/vllm", value]))),
        ("url", replace(config.promote, vllm=replace(config.promote.vllm, url=f"http://127.0.0.1:8000/{value}"))),
        ("install_dir", replace(config.promote, install_dir=f"/etc/{value}")),
    ):
        with pytest.raises(UserError, match=name):
            services_of(replace(config, promote=promote), FAST, "cpu")


def test_a_folder_with_a_percent_sign_is_no_specifier(tmp_path: Path) -> None:
    config = load_config("spica_gpu_allocation", [*QUICK, f"promote.install_dir={tmp_path}/%H"], "cpu")
    for text in Systemd(tmp_path).unit_files(services_of(config, FAST, "cpu"), tmp_path / "%H").values():
        assert f"EnvironmentFile=-{tmp_path}/%%H/secrets.env" in text.splitlines()


def test_an_empty_argument_stays_one() -> None:
    assert _quoted("") == '""'


@SYSTEMD
def test_a_drop_in_that_systemd_passes_over_stops_nothing(place: Place) -> None:  # noqa: F811
    """As that of a unit named `vllm`: the old command would run, answer, and pass for the new one."""
    assert place.apply("run-1", SLOW) is None
    (place.root / "bin" / "systemctl").write_text(
        f'#!/bin/sh\n[ "$1" = cat ] && exit 0\nexec {place.root}/bin/systemctl.real "$@"\n'
    )
    (place.root / "bin" / "systemctl.real").write_bytes((Path(__file__).with_name("fake_systemctl.sh")).read_bytes())
    (place.root / "bin" / "systemctl.real").chmod(0o755)
    stops = calls(place, "stop")
    back = place.apply("run-2", FAST)
    assert "systemd does not read" in back.why
    assert calls(place, "stop")[len(stops) :] == ["stop vllm.service", "stop whisper.service"], "only the rollback stops them"


@SYSTEMD
def test_another_drop_in_that_wins_is_seen_before_a_restart(place: Place) -> None:  # noqa: F811
    other = place.root / "units" / "vllm.service.d" / "60-other.conf"
    other.parent.mkdir()
    other.write_text("[Service]\nExecStart=\nExecStart=/bin/echo --model mine\n")
    back = place.apply("run-1", SLOW)
    assert "vllm.service: systemd would start" in back.why
    assert "/bin/echo --model mine" in back.why
    assert ("health", "ok") not in place.steps()


@SYSTEMD
def test_a_linked_drop_in_folder_is_refused_before_anything_changes(place: Place) -> None:  # noqa: F811
    elsewhere = place.root / "ssh.service.d"
    elsewhere.mkdir()
    (place.root / "units" / "vllm.service.d").symlink_to(elsewhere)
    with pytest.raises(UserError, match=rf"vllm\.service\.d: a symbolic link in this path leads to {elsewhere}"):
        place.apply("run-1", SLOW)
    assert list(elsewhere.iterdir()) == []
    assert not (place.root / "etc" / "vllm.yaml").exists()


@SYSTEMD
def test_units_that_cannot_start_in_this_order_are_refused(place: Place) -> None:  # noqa: F811
    target, units = target_of(place.config.promote), place.root / "units"
    target.check(["whisper.service", "vllm.service"])
    (units / "whisper.service.after").write_text("basic.target gpu.target")
    (units / "gpu.target.after").write_text("vllm.service")
    with pytest.raises(UserError, match=r"the units order whisper\.service after gpu\.target after vllm\.service"):
        target.check(["whisper.service", "vllm.service"])
    (units / "whisper.service.after").unlink()
    (units / "whisper.service.id").write_text("voice.service")
    (units / "vllm.service.id").write_text("voice.service")
    with pytest.raises(UserError, match="names of the same unit"):
        target.check(["whisper.service", "vllm.service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@SYSTEMD
def test_what_systemds_own_check_refuses_is_not_installed(place: Place) -> None:  # noqa: F811
    place.config.promote.vllm.command = [str(place.root / "no-such-program")]
    with pytest.raises(UserError, match=r"systemd-analyze verify: vllm\.service: Command .*no-such-program is not executable"):
        place.apply("run-1", SLOW)
    assert not (place.root / "units" / "vllm.service.d").exists()
    assert not (place.root / "etc" / "vllm.yaml").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemds_own_check_takes_what_is_written(tmp_path: Path) -> None:
    for unit in ("whisper.service", "vllm.service"):
        (tmp_path / unit).write_text("[Service]\nExecStart=/bin/true\n")
    config = load_config("spica_gpu_allocation", [*QUICK, "promote.vllm.command=[/bin/true,'',a b,'%','$x']"], "cpu")
    files = Systemd(tmp_path).unit_files(services_of(config, FAST, "cpu"), tmp_path)
    analyze(tmp_path, files)
    (path,) = (path for path in files if path.parent.name == "vllm.service.d")
    with pytest.raises(UserError, match=rf"{path}:\d+: Unknown key"):
        analyze(tmp_path, files | {path: files[path] + "CPUAffinitie=1\n"})


@SYSTEMD
def test_two_promotes_onto_one_unit_exclude_each_other(place: Place) -> None:  # noqa: F811
    """Each installs into a folder of its own: what they would both change is the unit."""
    target = target_of(place.config.promote)
    elsewhere = Place(replace(place.config, promote=replace(place.config.promote, install_dir=str(place.root / "other"))), place.root)
    with units_locked(target, ["vllm.service"]), pytest.raises(UserError, match=r"another promote \(process \d+\) is changing vllm\.service"):
        elsewhere.apply("run-1", SLOW)
    assert elsewhere.apply("run-1", SLOW) is None
    assert stat.S_IMODE((folder_of(elsewhere.config.promote) / "promotions" / "run-1").stat().st_mode) == 0o700


def calls(place: Place, verb: str) -> list[str]:  # noqa: F811
    return [line for line in (place.root / "units" / "calls").read_text().splitlines() if line.split()[0] == verb]


def test_the_defaults_are_units() -> None:
    for service in (PromoteSettings().vllm, PromoteSettings().whisper):
        check_unit("unit", service.unit, of_systemd=True)
