"""The files of a promotion for review: the files to install, their differences from the installed ones, and their hashes."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.manifest import versions
from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import read_plain, remove_plain, write_whole
from tune_gpu.common.clock import now
from tune_gpu.common.errors import UserError
from tune_gpu.promote.installed import digest, text_of
from tune_gpu.promote.render import DeployedService
from tune_gpu.promote.target import Target

MANIFEST = "manifest.json"
REVIEWED = ("changes.diff", "gate.json")
"""Files for the review, beside those to install."""


@dataclass(frozen=True)
class Bundle:
    """Deployable files: name in the promotion's folder -> (destination, content)."""

    files: Mapping[str, tuple[Path, str]]
    target: str
    units: tuple[str, ...]
    """Units in the order in which they start."""

    @property
    def installable(self) -> dict[Path, str]:
        """Return destination -> content."""
        return dict(self.files.values())

    @property
    def sha256(self) -> str:
        """Return a hash of the files, their destinations and the units. It is the same for the same deployment, whenever it is written."""
        content = {"target": self.target, "units": self.units, "files": self.listed}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def listed(self) -> dict[str, dict[str, str]]:
        """Return the files in the form of the manifest."""
        return {
            name: {"destination": str(path), "sha256": hashlib.sha256(content.encode()).hexdigest()}
            for name, (path, content) in self.files.items()
        }


def bundle_of(services: Sequence[DeployedService], target: Target, install: Path) -> Bundle:
    """Return the files of these services on this target."""
    files = {name: (install / name, service.config_text) for service in services if (name := service.config_name) is not None}
    files |= {f"{service.name}.env": (install / f"{service.name}.env", service.env_text) for service in services}
    for path, content in target.unit_files(services, install).items():
        name = f"{path.parent.name}/{path.name}" if path.parent.name.endswith(".d") else path.name
        files[name] = (path, content)
    return Bundle(files, target.kind, tuple(service.unit for service in services))


def write_bundle(folder: Path, bundle: Bundle, today: Bundle, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the promotion into the folder and return its manifest. The manifest is written last, so a promotion with a manifest is
    complete.

    The folder may be somebody else's, so no link in it is followed.

    Args:
        folder: created if it is missing. Its path is resolved.
        bundle: what will be installed.
        today: the baseline's files, to compare with if promote has not installed any yet.
        about: further fields of the manifest.
    """
    remove_plain(folder / MANIFEST)
    before = {name: text_of(path) for name, (path, _) in bundle.files.items()}
    for name, (_, content) in bundle.files.items():
        write_whole(folder / name, content, follow=False)
    write_whole(folder / "changes.diff", Redactor().text(_diff(bundle, today, before)), _least_open(bundle), follow=False)
    manifest = {
        "schema_version": 1,
        "created_at": now(),
        **about,
        "versions": versions(),
        "bundle_sha256": bundle.sha256,
        "units": list(bundle.units),
        "files": bundle.listed,
        "before": {str(path): digest(before[name]) for name, (path, _) in bundle.files.items()},
        "review": {name: digest(read_plain(folder / name)) for name in REVIEWED},
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", follow=False)
    return manifest


def before_of(bundle: Bundle) -> dict[str, str | None]:
    """Return destination -> hash of the file that is installed there now, or None if there is none."""
    return {str(path): digest(text_of(path)) for path, _ in bundle.files.values()}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a written promotion, or None if there is none. Raise UserError for a file that is not such a manifest."""
    try:
        content = read_plain(folder / MANIFEST, outside_files.PROMOTION.largest)
    except OSError as error:
        raise UserError(f"{folder / MANIFEST}: {error.strerror}. Run promote without --apply again.") from error
    if content is None:
        return None
    manifest = outside_files.parse_json(content, folder / MANIFEST, outside_files.PROMOTION)
    if not isinstance(manifest, dict):
        raise UserError(f"{folder / MANIFEST}: not a promotion's manifest. Run promote without --apply again.")
    return manifest


def is_promotions(folder: Path) -> bool:
    """Return whether `write_bundle` wrote the manifest in this folder."""
    try:
        manifest = read_manifest(folder)
    except (OSError, UserError):
        return False
    return manifest is not None and {"files", "before", "review"} <= manifest.keys()


def _least_open(bundle: Bundle) -> Path | None:
    """Return the installed file with the strictest permissions, or None if nothing is installed. The diff has parts of all files, so it
    gets these."""
    there = [path for path, _ in bundle.files.values() if path.exists()]
    return min(there, key=lambda path: path.stat().st_mode & 0o044, default=None)


def _diff(bundle: Bundle, today: Bundle, before: Mapping[str, str | None]) -> str:
    """Return a unified diff of each file against the installed one, or against the baseline's if none is installed."""
    parts: list[str] = []
    for name, (path, content) in bundle.files.items():
        old, of_baseline = before[name], today.files.get(name)
        label = str(path)
        if old is None and of_baseline is not None:
            old, label = of_baseline[1], f"{path} (the baseline's; nothing is installed there yet)"
        parts += difflib.unified_diff((old or "").splitlines(True), content.splitlines(True), label, f"{path} (promoted)")
    return "".join(parts)
