"""Ray trials a second of an evaluation that does nothing: R-Zero beside Ray's own random searcher, in turns, in one Ray.

    python -m tests.benchmarks.ray_rate --trials 300 --rounds 3

Also: proposals of a space with a million configurations, their time and the memory that they take (`--proposals 10000`).
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click


def rate(search: Callable[[], Any] | None, trials: int, parallel: int) -> float:
    """Trials a second; a null searcher is Ray's own random one."""
    from ray import tune

    class Nothing(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"score": float(self.config["x0"]), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

    with tempfile.TemporaryDirectory() as folder:
        config = {f"x{i}": tune.choice(list(range(10))) for i in range(6)}
        options: dict[str, Any] = {"search_alg": search()} if search else {}
        began = time.monotonic()
        results = tune.Tuner(
            Nothing, param_space=config,
            tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=trials, max_concurrent_trials=parallel, reuse_actors=True, **options),
            run_config=tune.RunConfig(storage_path=folder, name="r", verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)),
        ).fit()
        spent = time.monotonic() - began
    assert len(results) == trials
    assert not results.errors
    return trials / spent


def proposals(algorithm: str, count: int) -> dict[str, float]:
    """A space of 10^6 configurations: milliseconds of processor time a proposal (ask and tell; median, 99th percentile) and megabytes that the second half took."""
    from tune_gpu.config.schema import ParameterSpec, SearchSettings
    from tune_gpu.search.space import SearchSpace
    from tune_gpu.search.tournament import Result, Tournament

    space = SearchSpace.from_specs({f"x{i}": ParameterSpec(target="", values=list(range(10))) for i in range(6)})
    tournament = Tournament(space, SearchSettings(algorithm=algorithm, generations=10**9))
    spent: list[float] = []
    peak_half = 0.0
    for number in range(count):
        began = time.process_time()
        candidate = tournament.ask()
        assert candidate is not None
        tournament.tell(candidate.candidate_id, Result("ok", -sum((v - 3) ** 2 for v in candidate.params.values()), n_windows=1))
        spent.append(1000.0 * (time.process_time() - began))
        if number == count // 2:
            peak_half = _peak_mib()
    return {
        "median_ms": statistics.median(spent), "mean_ms": statistics.fmean(spent), "p99_ms": sorted(spent)[int(0.99 * count)],
        "last_tenth_mean_ms": statistics.fmean(spent[-max(1, count // 10):]), "second_half_mib": _peak_mib() - peak_half,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


@click.command(help=__doc__)
@click.option("--trials", default=300, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(0))
@click.option("--parallel", default=2, show_default=True, type=click.IntRange(1))
@click.option("--proposals", "n_proposals", default=0, show_default=True, type=click.IntRange(0))
@click.option("--algorithm", default="rzero", show_default=True)
def main(trials: int, rounds: int, parallel: int, n_proposals: int, algorithm: str) -> None:
    if n_proposals:
        click.echo(json.dumps({"algorithm": algorithm, "proposals": n_proposals} | proposals(algorithm, n_proposals)))
    if not rounds:
        return
    import ray

    from tune_gpu.config.schema import SearchSettings
    from tune_gpu.rzero import RZeroSearch

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(address="local", num_cpus=parallel, include_dashboard=False, log_to_driver=False)
    settings = SearchSettings(algorithm=algorithm, generations=10**9)
    searchers: dict[str, Callable[[], Any] | None] = {"random": None, algorithm: lambda: RZeroSearch(settings=settings)}
    for search in searchers.values():
        rate(search, 20, parallel)  # the first run starts Ray's workers, or imports what the searcher needs
    rates: dict[str, list[float]] = {name: [] for name in searchers}
    for number in range(rounds):
        for name in sorted(searchers, reverse=bool(number % 2)):  # whoever comes second finds more of Ray's workers started
            rates[name].append(rate(searchers[name], trials, parallel))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    click.echo(json.dumps({"trials_per_s": medians, "ratio": medians[algorithm] / medians["random"], "rounds": rates}))


if __name__ == "__main__":
    main()
