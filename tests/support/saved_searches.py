"""A search that is half way, and one that Tune keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune.search import Searcher

from tests.support.searches import search_of
from tune_gpu.rzero import RZeroSearch


def half_way(**changes: Any) -> RZeroSearch:
    search = search_of(**changes)
    begin(search)
    return search


def begin(search: Searcher) -> None:
    """Generation 0 is measured, two of generation 1 are in flight."""
    for number in range(4):
        assert isinstance(search.suggest(f"t{number}"), dict)
        if number < 2:
            search.on_trial_complete(f"t{number}", {"score": float(number)})


def keep(folder: Path, search: RZeroSearch, *trials: tuple[str, str, dict[str, Any], dict[str, Any]], **made: Any) -> RZeroSearch:
    """What a killed run leaves: the searcher's state and Tune's own of its trials; the searcher as `Tuner.restore` brings it up from them."""
    search.save(str(folder / "searcher-state-1.pkl"))
    kept = [
        [json.dumps({"trial_id": trial_id, "status": status, "evaluated_params": params}), json.dumps({"last_result": result})]
        for trial_id, status, params, result in trials
    ]
    (folder / "experiment_state-1.json").write_text(json.dumps({"trial_data": kept}))
    later: RZeroSearch = cloudpickle.loads(cloudpickle.dumps(search_of(**made)))
    later.restore_from_dir(str(folder))
    return later


ENDED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [(f"t{i}", "TERMINATED", {}, {"score": float(i), "done": True}) for i in range(2)]
