"""Check, before the first trial, that every node of a cluster has what the services need: packages, programs, models, cores, clips."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tune_gpu.common.errors import UserError
from tune_gpu.common.wording import counted
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.checks import check_inputs, check_service_here
from tune_gpu.experiment.space_check import services_in_use
from tune_gpu.search.space import SearchSpace
from tune_gpu.services.base import Service


def check_nodes(config: ExperimentConfig, kind: str) -> None:
    """Raise UserError if a node that a trial may run on lacks anything, naming the nodes, the service and what to install.

    Does nothing without `ray.address`, because this machine is checked by itself. Ray must be up.
    """
    if config.ray.address is None:
        return
    from tune_gpu.ray_tune.nodes import NoAnswerOfNode, nodes_of_trials, on_each_node

    nodes_by_problem: dict[str, list[str]] = {}
    for node, found in on_each_node(nodes_of_trials(config, kind), lacking, asdict(config), kind).items():
        problems = [f"it cannot check its services. Install this program there. ({found})"] if isinstance(found, NoAnswerOfNode) else found
        for problem in problems:
            nodes_by_problem.setdefault(problem, []).append(node.name)
    if not nodes_by_problem:
        return
    (problem, nodes), *others = nodes_by_problem.items()
    more = f" ({counted(len(others), 'further problem')}: tune-gpu doctor prints them there)" if others else ""
    with config.spelling.errors():
        raise UserError(f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)}: {problem}{more}")


@contextlib.contextmanager
def checked_ray(config: ExperimentConfig, kind: str) -> Iterator[None]:
    """Join the cluster of `ray.address`, or start a local Ray, for the block. Raise UserError as `check_nodes` does."""
    from tune_gpu.ray_tune.session import local_or_joined_ray

    with local_or_joined_ray(config.ray):
        check_nodes(config, kind)
        yield


def lacking(experiment: Mapping[str, Any], kind: str) -> list[str]:
    """Return what this machine lacks of what the experiment needs, each in one line. A node runs this."""
    try:
        return list(dict.fromkeys(_lacking(config_of(experiment), kind)))
    except UserError as error:  # for example, a kind of service that no package here has
        return [str(error)]


def _lacking(config: ExperimentConfig, kind: str) -> Iterator[str]:
    for service in services_in_use(config, SearchSpace.from_specs(config.parameters)):
        if (problem := _problem_of(service, kind)) is not None:
            yield problem if problem.startswith(f"services.{service.name}.") else f"{service.name}: {problem}"
    try:
        check_inputs(config)
    except UserError as error:
        yield str(error)


def _problem_of(service: Service, kind: str) -> str | None:
    try:
        if (missing := service.kind.missing(kind)) is not None:
            return missing
        check_service_here(service)
    except UserError as error:
        return str(error)
    except Exception as error:  # a kind of another package may raise anything
        return f"a service of kind {service.kind.name} cannot be checked ({type(error).__name__}: {error}). Repair its package."
    return None
