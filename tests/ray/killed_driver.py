"""A driver that a trial kills: `python -m tests.ray.killed_driver FOLDER run|resume ALGORITHM`.

Every evaluation writes its candidate into FOLDER/log; in `run` the second of generation 3 kills the driver with SIGKILL, as soon as
Tune has kept that it is in flight, in all three files of its state, and before it writes them again (it writes them one by one and not
atomically: a driver killed while it writes may leave half of one, which Tune itself cannot read).
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tune_gpu.config.schema import SearchSettings
from tune_gpu.ray_tune.run_search import RunSearch
from tune_gpu.ray_tune.saved_trials import kept_trials
from tune_gpu.rzero import RZeroScheduler, RZeroSearch

STUCK_S = 90.0
"""A driver that has not ended by then says on stderr where it is."""
SPACE: dict[str, list[Any]] = {"util": [0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60], "size": ["tiny", "base", "small"]}


def settings(algorithm: str) -> SearchSettings:
    return SearchSettings(algorithm=algorithm, seed=11, generations=5)


def score(params: dict[str, Any]) -> float:
    return 1.0 - abs(params["util"] - 0.45) - 0.1 * SPACE["size"].index(params["size"])


class Logged(tune.Trainable):
    """Writes down what it evaluates."""

    def setup(self, config: dict[str, Any], folder: str = "", victim: int = 0) -> None:
        self._folder, self._victim = Path(folder), victim

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        candidate = self.config["candidate"]
        with (self._folder / "log").open("a") as log:
            log.write(f"{candidate['candidate_id']} {candidate['params']}\n")
        if self._victim and candidate["generation"] == 3 and candidate["candidate_id"].endswith("c1"):
            began = time.time()
            while not self._is_kept(candidate["candidate_id"], began):
                time.sleep(0.01)
            os.kill(self._victim, signal.SIGKILL)
        return {"fitness": score(candidate["params"]), "done": True}

    def _is_kept(self, candidate_id: str, began: float) -> bool:
        """In the state that Tune has written since then: its trials, its searcher's, and that of what it wraps the searcher in."""
        kept = self._folder / "r"
        try:
            [search] = kept.glob("searcher-state-*")
            [wrapped] = kept.glob("search_gen_state-*")
            [trials] = kept.glob("experiment_state-*")
            live = json.loads(search.read_text())["live"]
            pickle.loads(wrapped.read_bytes())
        except (ValueError, EOFError, pickle.UnpicklingError):
            return False
        written = min(path.stat().st_mtime for path in (search, wrapped, trials))
        return written > began and candidate_id in live.values() and any(trial.trial_id in live for trial in kept_trials(kept))


def main(folder: Path, action: str, algorithm: str) -> None:
    faulthandler.dump_traceback_later(STUCK_S)
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    trainable = tune.with_parameters(Logged, folder=str(folder), victim=os.getpid() if action == "run" else 0)
    if action == "run":
        search = RunSearch(RZeroSearch(SPACE, settings=settings(algorithm)).tournament)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search, scheduler=RZeroScheduler(search), num_samples=-1, max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(folder), name="r", verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)))
    else:
        tuner = tune.Tuner.restore(str(folder / "r"), trainable)
    results = tuner.fit()
    (folder / "ended").write_text(f"{len(results)} {len(results.errors)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
