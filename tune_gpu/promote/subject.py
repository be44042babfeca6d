"""The subject of a promotion, and whether it is what somebody has reviewed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.finished_run import FinishedRun, read_finished_run
from tune_gpu.common.atomic_files import read_plain
from tune_gpu.common.errors import UserError
from tune_gpu.compare.metrics import metrics_of
from tune_gpu.config.rules import OneOf, check_value
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.promote.apply import folder_of, target_of
from tune_gpu.promote.bundle import MANIFEST, REVIEWED, Bundle, bundle_of, is_promotions, read_manifest
from tune_gpu.promote.evidence import evidence_of, target_device
from tune_gpu.promote.gate import Evidence, TargetDevice
from tune_gpu.promote.installed import digest
from tune_gpu.promote.ownership import foreign
from tune_gpu.promote.places import targets_of
from tune_gpu.promote.render import DeployedService, not_deployed, services_of
from tune_gpu.promote.settings import SYSTEM_FILE, artifacts_of, ignored, trusted_settings, with_trusted
from tune_gpu.promote.target import Target
from tune_gpu.services import registry
from tune_gpu.services.cards import most_cards

_MOST_SHOWN, _LONGEST = 4, 160
"""Largest number of differences that a message names, and the length of each value."""


@dataclass(frozen=True)
class Subject:
    """The subject of a promotion, computed from the run and from trusted settings."""

    run: FinishedRun
    target: Target
    device: TargetDevice
    evidence: Evidence
    services: Sequence[DeployedService]
    """What is deployed, in the order of starting."""
    bundle: Bundle
    folder: Path
    """The folder for the review."""

    @property
    def about(self) -> dict[str, Any]:
        """Return the fields of its manifest that describe it."""
        return about_of(self.run, self.evidence, self.device.kind)


def subject_of(
    run_id: str,
    overrides: list[str],
    out: str | None,
    settings_file: str | None,
    print_line: Callable[[str], None],
    check: Callable[[ExperimentConfig], None],
    *,
    trust: bool = False,
) -> Subject:
    """Return the winner of a run on the target of the trusted settings.

    Args:
        run_id: the run's id, or its folder.
        overrides: `key=value` of the command line.
        out: the folder for the review; None for the default in the artifacts.
        settings_file: a file of trusted settings; None for the system's.
        print_line: prints which settings are ignored.
        check: raises UserError for a configuration that cannot be measured.
        trust: whether the user declares that the run is their own.

    Raises:
        UserError: a setting is invalid, the run has no winner, or the device cannot be read.
    """
    trusted = trusted_settings(overrides, settings_file)
    run = read_finished_run(artifacts_of(overrides), run_id, overrides, "promote", trust=trust)
    if others := ignored(run.config, trusted):
        print_line(f"ignored: the run's own {', '.join(others)}; only {settings_file or SYSTEM_FILE} and the command line decide how to promote")
    run = replace(run, config=with_trusted(run.config, trusted))
    check(run.config)
    settings = run.config.promote
    check_value(OneOf(tuple(metric.name for metric in metrics_of(run.config))), "promote.metric", settings.metric)
    target = target_of(settings)
    folder = _asked_for(out) if out else run.folder.root / "promotions" / run.folder.experiment / run.folder.run_id
    units = [each.unit for each in targets_of(settings, registry.services_of(run.config.services)).values()]
    device = target_device(settings, target, units, most_cards(run.config))
    services = services_of(run.config, run.winner, device.kind)
    for name in not_deployed(run.config, services):
        print_line(f"{name}: runs already, so it is neither deployed nor touched")
    return Subject(run, target, device, evidence_of(run), services, bundle_of(services, target, folder_of(settings)), folder)


def _asked_for(out: str) -> Path:
    """Return the folder of `--out`. Raise UserError for a folder with another manifest (a run's, for example), which would be replaced."""
    folder = Path(out).expanduser().resolve()
    if os.path.lexists(folder / MANIFEST) and not is_promotions(folder):
        raise UserError(f"--out {out}: its {MANIFEST} is not a promotion's, and would be replaced. Give another folder.")
    return folder


def about_of(run: FinishedRun, evidence: Evidence, kind: str) -> dict[str, Any]:
    """Return the fields that identify what is promoted. If they are unchanged, no new soak is needed."""
    return {
        "run_id": run.folder.run_id,
        "experiment": run.folder.experiment,
        "params": run.winner,
        "device": kind,
        "target": run.config.promote.target,
        "compared_at": evidence.comparison and evidence.comparison.ended_at,
    }


def reviewed(subject: Subject, expect: str | None) -> dict[str, Any]:
    """Return the manifest of the reviewed promotion. Raise UserError if it is not exactly what would be installed. Nothing is written."""
    folder, bundle = subject.folder, subject.bundle
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"--apply: nothing was written for review in {folder}. Run promote without --apply and review it first.")
    if others := differences(folder, manifest, bundle, subject.about):
        more = f"; {len(others) - _MOST_SHOWN} more" if len(others) > _MOST_SHOWN else ""
        raise UserError(f"--apply: not what was reviewed: {'; '.join(others[:_MOST_SHOWN])}{more}. Run promote without --apply and review it again.")
    if expect is None and (why := foreign(folder)):
        raise UserError(f"--apply: others can change the review ({why}). Give --expect with the hash that the review printed.")
    if expect is not None and expect.lower() != bundle.sha256:
        raise UserError(f"--expect {expect}: the bundle's sha256 is {bundle.sha256}. Run promote without --apply and review it again.")
    return manifest


def kept_of(subject: Subject) -> dict[str, Any] | None:
    """Return the manifest of a promotion that was written before for the same winner, comparison and target, or None. Such a promotion
    needs no new soak.

    In a folder that others can change, the manifest does not prove that it was soaked.
    """
    if foreign(subject.folder):
        return None
    try:
        manifest = read_manifest(subject.folder)
        return None if manifest is None or differences(subject.folder, manifest, subject.bundle, subject.about) else manifest
    except (UserError, OSError):  # the promotion is written again
        return None


def differences(folder: Path, manifest: Mapping[str, Any], bundle: Bundle, about: Mapping[str, Any]) -> list[str]:
    """Return how a written promotion differs from the one that would be written now. The manifest is not trusted.

    Args:
        folder: the promotion's folder.
        manifest: its manifest.
        bundle: the bundle that would be written now.
        about: the present run, winner, comparison, device and target.
    """
    found = [f"{key} was {_shown(manifest.get(key))}, but now is {_shown(new)}" for key, new in about.items() if manifest.get(key) != new]
    if manifest.get("units") != list(bundle.units):
        found.append(f"units are {_shown(manifest.get('units'))}, now {', '.join(bundle.units)}")
    listed = manifest.get("files")
    listed = listed if isinstance(listed, dict) else {}
    found += [f"{_shown(name)} is listed, but would not be written now" for name in sorted(set(listed) - set(bundle.files))]
    for name, wanted in bundle.listed.items():
        entry = listed.get(name)
        if not isinstance(entry, dict):
            found.append(f"{name} would be written now, but is not listed")
        elif entry.get("destination") != wanted["destination"]:
            found.append(f"{name} was meant for {_shown(entry.get('destination'))}, but now for {wanted['destination']}")
        elif (digest_there := digest(read_plain(folder / name))) != wanted["sha256"]:
            found.append(f"{folder / name}: {_first_difference(folder / name, bundle.files[name][1])}")
        elif entry.get("sha256") != digest_there:
            found.append(f"{name} has another hash in the manifest")
    review = manifest.get("review")
    for name in REVIEWED:
        if not isinstance(review, dict) or digest(read_plain(folder / name)) != review.get(name):
            found.append(f"{folder / name} has changed since the review")
    return found if found or manifest.get("bundle_sha256") == bundle.sha256 else ["its bundle_sha256 differs"]


def reviewed_before(folder: Path, manifest: Mapping[str, Any], bundle: Bundle) -> dict[str, str | None]:
    """Return destination -> hash of the file installed at the review. Raise UserError if the manifest has other files."""
    before = manifest.get("before")
    if not isinstance(before, dict) or set(before) != {str(path) for path in bundle.installable}:
        raise UserError(f"{folder / MANIFEST}: lists other files than would be installed. Run promote without --apply again.")
    return before


def _shown(value: Any) -> str:
    """Return the value as one short line of plain characters. It may come from anybody, and is printed on a terminal."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _first_difference(path: Path, now: str) -> str:
    content = read_plain(path)
    if content is None:
        return "is missing"
    lines = content.decode(errors="replace").splitlines(), now.splitlines()
    number = next((n for n, (a, b) in enumerate(zip(*lines, strict=False)) if a != b), min(map(len, lines)))
    there, wanted = ((text[number : number + 1] or ["nothing"])[0][:_LONGEST] for text in lines)
    return f"line {number + 1} was reviewed as {there!r}, now it would be {wanted!r}"


