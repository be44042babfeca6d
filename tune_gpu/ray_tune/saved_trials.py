"""Read Tune's own records of its trials in an experiment's folder.

Tune writes its trials and its searcher's state one after the other, and copies them file by file. After a kill one may be older than the
other. A searcher that relied only on its own state would then wait for a trial that Tune does not have, or that has already ended, and the
restored run would hang without a message.
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
    """One trial as Tune has saved it."""

    trial_id: str
    params: Mapping[str, Any]
    """The searcher's suggestion, as `compat.as_kept` returns it."""
    ended: bool
    result: Mapping[str, Any] | None
    """The trial's last report; None before the first, and for a trial that ended with an error."""


def is_of(kept: Mapping[str, Any], suggested: Mapping[str, Any]) -> bool:
    """Return whether Tune's record belongs to this suggestion."""
    return json.dumps(kept, sort_keys=True) == json.dumps(as_kept(suggested), sort_keys=True)  # compared as text, because NaN is not equal to itself


def kept_trials(folder: str | Path) -> list[KeptTrial]:
    """Return the trials of the latest state in the folder, in the order of their creation, or an empty list if no state can be read."""
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
