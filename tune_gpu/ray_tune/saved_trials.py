"""What Tune itself has kept of its trials, in an experiment's folder.

Tune writes its trials and its searcher's state one after the other, and copies them file by file: after a kill the one may be a moment
older than the other. A searcher that takes its own state for the whole truth then waits for a trial that Tune has never heard of, or
has ended already, and a restored run stands still without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial

from tune_gpu.common import outside_files
from tune_gpu.ray_tune.compat import STATE_FILES, as_kept


@dataclass(frozen=True)
class KeptTrial:
    """One trial as Tune has kept it."""

    trial_id: str
    params: Mapping[str, Any]
    """What the searcher suggested, as `compat.as_kept` gives it."""
    ended: bool
    result: Mapping[str, Any] | None
    """Its last report; null before the first, and for a trial that ended with an error."""


def is_of(kept: Mapping[str, Any], suggested: Mapping[str, Any]) -> bool:
    """Return whether what Tune keeps of a suggestion is of this one."""
    return json.dumps(kept, sort_keys=True) == json.dumps(as_kept(suggested), sort_keys=True)  # as text NaN is NaN


def kept_trials(folder: str | Path) -> list[KeptTrial]:
    """The trials of the latest state in the folder, in the order in which they were made; none if there is no state that can be read."""
    states = sorted(Path(folder).glob(STATE_FILES))
    if not states:
        return []
    try:
        path, limit = states[-1], outside_files.TUNE_STATE
        pairs = outside_files.read_json(path, limit)["trial_data"]
        parsed = [[outside_files.parse_json(text, path, limit) for text in pair] for pair in pairs]
        return [_kept(trial, metadata) for trial, metadata in parsed]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _kept(trial: Mapping[str, Any], metadata: Mapping[str, Any]) -> KeptTrial:
    status = trial["status"]
    result = metadata.get("last_result") if status != Trial.ERROR else None
    return KeptTrial(trial["trial_id"], trial["evaluated_params"], status in (Trial.TERMINATED, Trial.ERROR), result or None)
