"""What a promotion leaves for review: the files as they will be installed, what they change, how to take it back, and their hashes."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_gpu.artifacts import now, versions
from tune_gpu.errors import UserError
from tune_gpu.promote.installed import digest, text_of
from tune_gpu.promote.render import Service
from tune_gpu.promote.target import Target
from tune_gpu.redaction import Redactor
from tune_gpu.whole_files import write_whole

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """Deployable files: name in the promotion's folder -> (destination, content)."""

    files: Mapping[str, tuple[Path, str]]

    @property
    def installable(self) -> dict[Path, str]:
        """Destination -> content."""
        return dict(self.files.values())


def bundle_of(services: Sequence[Service], target: Target, install: Path) -> Bundle:
    """The files of these services on this target."""
    files = {service.config_name: (install / service.config_name, service.config_text) for service in services}
    files |= {f"{service.name}.env": (install / f"{service.name}.env", service.env_text) for service in services}
    for path, content in target.unit_files(services, install).items():
        name = f"{path.parent.name}/{path.name}" if path.parent.name.endswith(".d") else path.name
        files[name] = (path, content)
    return Bundle(files)


def write_bundle(
    folder: Path, bundle: Bundle, today: Bundle, target: Target, units: Sequence[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write everything into the folder, the manifest last: with it the promotion is whole. Returns the manifest.

    Args:
        folder: made if it is missing.
        bundle: what will be installed.
        today: the baseline's files: what runs today where nothing of ours is installed yet.
        target: whose commands `rollback.sh` uses.
        units: in the order in which they start.
        about: more for the manifest.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    before = {name: text_of(path) for name, (path, _) in bundle.files.items()}
    for name, (_, content) in bundle.files.items():
        _put(folder / name, content)
    for name, text in before.items():
        if text is not None:
            _put(folder / "before" / name, text, like=bundle.files[name][0])
        else:
            (folder / "before" / name).unlink(missing_ok=True)
    _put(folder / "changes.diff", Redactor().text(_diff(bundle, today, before)), like=_least_open(bundle))
    _put(folder / "rollback.sh", _rollback_script(bundle, before, target.shell(units)))
    (folder / "rollback.sh").chmod(0o755)
    manifest = {
        "schema_version": 1,
        "created_at": now(),
        **about,
        "versions": versions(),
        "files": {name: {"destination": str(path), "sha256": digest(content)} for name, (path, content) in bundle.files.items()},
        "before": {str(path): digest(before[name]) for name, (path, _) in bundle.files.items()},
        "review": {name: digest((folder / name).read_text(encoding="utf-8")) for name in ("changes.diff", "rollback.sh", "gate.json")},
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def before_of(bundle: Bundle) -> dict[str, str | None]:
    """Destination -> hash of what is installed there now; null where nothing is."""
    return {str(path): digest(text_of(path)) for path, _ in bundle.files.values()}


def read_bundle(folder: Path) -> tuple[Bundle, dict[str, Any]] | None:
    """A promotion that was written; null if there is none. Raises UserError where a file is not the one whose hash was written."""
    text = text_of(folder / MANIFEST)
    if text is None:
        return None
    try:
        manifest = dict(json.loads(text))
        files = {name: (Path(entry["destination"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST}: not a promotion's manifest ({error}); run promote without --apply again") from error
    found = {}
    for name, (path, known) in files.items():
        content = text_of(folder / name)
        if content is None or digest(content) != known:
            raise UserError(f"{folder / name}: not the file that passed the gate (its hash differs); run promote without --apply again")
        found[name] = (path, content)
    return Bundle(found), manifest


def is_promotions(folder: Path) -> bool:
    """Whether the manifest there is one that `write_bundle` wrote."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"files", "before", "review"} <= manifest.keys()


def _put(path: Path, content: str, like: Path | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, like)


def _least_open(bundle: Bundle) -> Path | None:
    """Of what is installed, the file that the fewest may read: the differences hold parts of all of them. Null where nothing is."""
    there = [path for path, _ in bundle.files.values() if path.exists()]
    return min(there, key=lambda path: path.stat().st_mode & 0o044, default=None)


def _diff(bundle: Bundle, today: Bundle, before: Mapping[str, str | None]) -> str:
    """Unified, file by file: against what is installed, else against the baseline's files."""
    parts: list[str] = []
    for name, (path, content) in bundle.files.items():
        old, of_baseline = before[name], today.files.get(name)
        label = str(path)
        if old is None and of_baseline is not None:
            old, label = of_baseline[1], f"{path} (the baseline's; nothing is installed there yet)"
        parts += difflib.unified_diff((old or "").splitlines(True), content.splitlines(True), label, f"{path} (promoted)")
    return "".join(parts)


def _rollback_script(bundle: Bundle, before: Mapping[str, str | None], commands: Sequence[str]) -> str:
    """For a hand without this program; `tune-gpu promote --rollback` does the same and watches."""
    lines = ["#!/bin/sh", "# Puts back what was there when this promotion was written.", "set -eu", 'here=$(cd "$(dirname "$0")" && pwd)']
    for name, (path, _) in bundle.files.items():
        destination = shlex.quote(str(path))
        if before[name] is None:
            lines.append(f"rm -f {destination}")
        else:
            lines.append(f'cp "$here"/before/{shlex.quote(name)} {destination}')
    return "\n".join([*lines, *commands]) + "\n"
