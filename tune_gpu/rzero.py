"""R-Zero as Ray Tune's search algorithm and scheduler: a thin shell around `tournament.py`, for anyone's trainable.

    from ray import tune
    from tune_gpu.rzero import RZeroScheduler, RZeroSearch

    search = RZeroSearch({"x": [1, 2, 3, 4], "mode": ["a", "b"]}, metric="score", mode="max", seed=0)
    tuner = tune.Tuner(trainable, tune_config=tune.TuneConfig(
        search_alg=search, scheduler=RZeroScheduler(search), num_samples=-1, max_concurrent_trials=2))

Without `space` Tune's own `param_space` is used. The generation's barrier is inside: `suggest` answers null while results are awaited,
and `Searcher.FINISHED` when all generations are over. Set `max_concurrent_trials`: without it Tune queues one pending trial of a custom
searcher only. To resume after a kill where it was, run with `TUNE_GLOBAL_CHECKPOINT_S=1` (Tune saves every 10 s otherwise; with 0 after
every event, and a kill is then likely to hit it while it copies its own files, which it cannot read afterwards).
"""

from tune_gpu.ray_tune.scheduler import RZeroScheduler
from tune_gpu.ray_tune.searcher import RZeroSearch

__all__ = ["RZeroScheduler", "RZeroSearch"]
