"""Checks of a configuration that need the rest of the program or this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.places import existing, write_error
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.rules import check
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.config.targets import Target
from tune_gpu.services.base import Service


def check_config(config: ExperimentConfig) -> None:
    """Raise UserError for every error that can be found before anything starts."""
    with config.spelling.errors():
        _check(config)


def _check(config: ExperimentConfig) -> None:
    from tune_gpu.common.process.ports import free_port
    from tune_gpu.compare import confirm
    from tune_gpu.experiment.secret_check import check_secrets
    from tune_gpu.experiment.space_check import check_space, services_in_use, settings_in_use
    from tune_gpu.experiment.traffic_check import check_traffic
    from tune_gpu.workload.sessions.auxiliary import auxiliary_service
    from tune_gpu.workload.stages import stages_of

    check(config)
    if not config.objective.weights:
        raise UserError("objective.weights: no term has a weight. Set at least one weight above 0.")
    space = check_space(config)
    check_secrets(config)
    confirm.check_metrics(config.confirm, config.objective.latency_percentile, catalogue_for(config), sessions=config.workload.has_sessions)
    for name, settings in config.services.items():
        if hasattr(settings, "max_model_len"):
            _check_room(config.workload.max_tokens, name, settings_in_use(config, space, Target(name, "max_model_len")))
    check_traffic(config)
    free_port(config.run.port_range)
    _check_writable(Path(config.run.artifacts_dir).expanduser())
    local = config.ray.address is None  # on a cluster, clips, models and cores belong to the nodes: see `node_check`
    if local:
        check_inputs(config)
    for name, auxiliary in config.workload.auxiliary.items():
        auxiliary_service(name, auxiliary, stages_of(config))
    in_use = list(services_in_use(config, space))
    _check_shares(in_use)
    for service in in_use:
        if local:
            check_service_here(service)
        else:
            service.kind.check(service.name, service.settings, local=False)


def check_inputs(config: ExperimentConfig) -> None:
    """Raise UserError if this machine has not got what the traffic sends, such as clips."""
    from tune_gpu.experiment.traffic_check import check_traffic
    from tune_gpu.workload.inputs import load_inputs
    from tune_gpu.workload.sources.loaded import check_sources
    from tune_gpu.workload.stages import stages_of

    driven = check_traffic(config)
    if config.workload.has_sessions:
        check_sources(config.workload, stages_of(config), spoken_language(config))
    else:
        load_inputs(config.workload, driven, spoken_language(config))


def check_service_here(service: Service) -> None:
    """Raise UserError if a service cannot start on this machine: its model, its program or its cores are not here."""
    service.kind.check(service.name, service.settings, local=True)
    if cores := getattr(service.settings, "cpu_cores", None):
        _check_cores(f"{service.name}.cpu_cores", cores)


def _check_shares(services: Sequence[Service]) -> None:
    """Raise UserError if the services reserve more than the whole device, even with their smallest shares."""
    least: dict[str, float] = {}
    for service in services:
        if (share := service.gpus.share) is not None:
            least[service.name] = min(share, least.get(service.name, share))
    if len(least) > 1 and sum(least.values()) > 1.0:
        shares = " + ".join(f"{name} {share:g}" for name, share in least.items())
        raise UserError(f"services: {shares} = {sum(least.values()):g} of the device's memory, even with the smallest share of each. Lower them to a sum of at most 1.")


def _check_cores(key: str, cores: str | None) -> None:
    from tune_gpu.common.process.cores import parse_cores

    there = sorted(os.sched_getaffinity(0))
    if missing := sorted(set(parse_cores(cores) or []) - set(there)):
        raise UserError(f"{key}={cores}: this machine has no core {', '.join(map(str, missing))}. Set cores of {there[0]}-{there[-1]}.")


def _check_room(max_tokens: int, service: str, contexts: list[int | str | None]) -> None:
    """Raise UserError if no candidate's context has room for an answer and a prompt of one token: vLLM would refuse every request of the
    run."""
    known = [context for context in contexts if isinstance(context, int)]
    if known and len(known) == len(contexts) and max_tokens >= max(known):
        raise UserError(f"workload.max_tokens={max_tokens}: an answer of this length and its prompt do not fit into {service}.max_model_len={max(known)}. Lower it.")


def _check_writable(folder: Path) -> None:
    there = existing(folder)
    if error := write_error(there):
        reason = error.strerror or "unknown reason"
        raise UserError(f"run.artifacts_dir={folder}: {there} cannot be written ({reason}). Set a folder that this user can write.") from error
