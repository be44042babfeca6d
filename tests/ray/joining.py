"""A driver that joins a cluster by one address after another, and runs some evaluations that only wait each time.

    python -m tests.ray.joining FOLDER ADDRESS …
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.ray.noop import LOG, TOGETHER, WAIT, NoopTrainable
from tests.ray.noop_run import experiment
from tune_gpu.config.schema import RaySettings
from tune_gpu.ray_tune.session import local_or_joined_ray


def main(address: str, folder: Path) -> None:
    folder.mkdir()
    variables = {LOG: str(folder / "log"), WAIT: "0.1", TOGETHER: "1"}
    with local_or_joined_ray(RaySettings(address=address, runtime_env={"env_vars": variables})):
        run = experiment(folder, NoopTrainable, "cuda", 1, "search.initial=6", "ray.cpus_per_trial=0.25", "ray.cpus_per_service=0.125")
        summary = run.run()
    print(summary.ended, summary.counts, summary.best and list(summary.best.evaluations))


if __name__ == "__main__":
    for number, address in enumerate(sys.argv[2:]):
        main(address, Path(sys.argv[1]) / str(number))
