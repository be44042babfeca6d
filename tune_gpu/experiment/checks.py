"""Checks of a configuration that need the rest of the program or this machine."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path

from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Metric
from tune_gpu.common.places import existing, write_error
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.loader import nearest
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target
from tune_gpu.metrics import objective_paths, terms

_FEWEST_TURNS = 0.01
"""Of a window, in the mean."""


def check_config(config: ExperimentConfig) -> None:
    """What can be known to be wrong before anything starts. Raises UserError."""
    from tune_gpu.artifacts.run_folder import check_name
    from tune_gpu.common.process.ports import check_port_range, free_port
    from tune_gpu.compare import confirm
    from tune_gpu.evaluation import objective
    from tune_gpu.experiment.space_check import check_space, settings_in_use
    from tune_gpu.search import tournament
    from tune_gpu.services.models import resolve_llm, resolve_whisper
    from tune_gpu.services.vllm.secret_flags import check_secrets
    from tune_gpu.workload.audio import load_utterances

    check_name("name", config.name)
    space = check_space(config)
    check_secrets(config)
    tournament.check(config.search)
    objective.check(config.objective)
    confirm.check(config.confirm, config.objective.latency_percentile)
    _check_workload(config)
    _check_measured(config)
    _check_room(config.workload.max_tokens, settings_in_use(config, space, Target("vllm", "max_model_len")))
    check_port_range(config.run.port_range)
    free_port(config.run.port_range)
    _check_writable(Path(config.run.artifacts_dir).expanduser())
    if config.ray.address is None:  # on a cluster clips, models and cores are the worker's
        load_utterances(config.workload.audio, spoken_language(config))
        for value in settings_in_use(config, space, Target("vllm", "model")):
            resolve_llm(value)
        for value in settings_in_use(config, space, Target("whisper", "model")):
            resolve_whisper(value)
        for target in (Target("vllm", "cpu_cores"), Target("whisper", "cpu_cores")):
            for value in settings_in_use(config, space, target):
                _check_cores(str(target), value)


def _check_cores(key: str, cores: str | None) -> None:
    from tune_gpu.common.process.cores import parse_cores

    there = sorted(os.sched_getaffinity(0))
    try:
        wanted = parse_cores(cores) or []
    except ValueError:
        raise UserError(f"{key}={cores}: allowed is a list of cores, as in 0,2-3") from None
    if missing := sorted(set(wanted) - set(there)):
        raise UserError(f"{key}={cores}: this machine has no core {', '.join(map(str, missing))}; allowed: {there[0]}-{there[-1]}")


def _check_workload(config: ExperimentConfig) -> None:
    from tune_gpu.workload.capacity import LONGEST_PAUSE

    workload = config.workload
    if config.search.racing and workload.windows < 2:
        raise UserError(f"search.racing=true needs workload.windows of 2 or more, not {workload.windows}: one window has no uncertainty")
    turns = workload.turn_rate_per_s * min(seconds for seconds in (workload.window_s, workload.solo_window_s, config.confirm.window_s) if seconds)
    if turns < _FEWEST_TURNS:  # windows are drawn until somebody speaks in one
        raise UserError(
            f"workload.turn_rate_per_s={workload.turn_rate_per_s:g}: {turns:.2g} voice turns in a window; allowed is {_FEWEST_TURNS:g} or more, "
            "with longer windows (workload.window_s) or more turns"
        )
    longest_pause_s = LONGEST_PAUSE * workload.session_pause_s
    if 0 < workload.capacity_step_s <= longest_pause_s:  # nobody would speak in a step, and a capacity of 0 would stand for "not measured"
        raise UserError(
            f"workload.capacity_step_s={workload.capacity_step_s:g}: allowed is 0 (no ramp) or above {longest_pause_s:g}, the longest pause of a caller "
            f"(workload.session_pause_s={workload.session_pause_s:g})"
        )
    for snr_db in workload.audio.noise_snr_db:
        if snr_db is not None and not -100 <= snr_db <= 100:
            raise UserError(f"workload.audio.noise_snr_db={snr_db:g}: allowed is -100 to 100, or null for the clean clip")


def _check_measured(config: ExperimentConfig) -> None:
    """Raise UserError for a term or an objective that is not measured: no evaluation of the whole run would count."""
    for name, metric in terms().items():
        weight = config.objective.weights.get(name, 0.0)
        if weight > 0 and (why := _unmeasured(metric, config)):
            raise UserError(f"{why}: no {name} is measured, and objective.weights.{name}={weight:g} weighs it. Allowed is that with objective.weights.{name}=0.")
    paths = objective_paths()
    for name in config.search.objectives:
        if name not in paths:
            raise UserError(f"search.objectives.{name}: no such metric{nearest(name, list(paths))}; allowed: {', '.join(paths)}")
        if why := _unmeasured(paths[name], config):
            raise UserError(f"search.objectives.{name}: it is not measured with {why}")


def _unmeasured(metric: Metric, config: ExperimentConfig) -> str:
    """Return the setting with which the metric is not measured, or nothing."""
    if metric.needs.setting and not attrgetter(metric.needs.setting)(config):
        return f"{metric.needs.setting}=0"
    return "device=cpu" if metric.needs.card and config.device == "cpu" else ""


def _check_room(max_tokens: int, contexts: list[int | str | None]) -> None:
    """An answer must fit into some candidate's context, beside a prompt of one token: else vLLM refuses every request of the run."""
    told = [context for context in contexts if isinstance(context, int)]
    if told and len(told) == len(contexts) and max_tokens >= max(told):
        raise UserError(f"workload.max_tokens={max_tokens}: no answer of that length fits vllm.max_model_len={max(told)} beside its prompt")


def _check_writable(folder: Path) -> None:
    there = existing(folder)
    if error := write_error(there):
        reason = error.strerror or "it cannot"
        raise UserError(f"run.artifacts_dir={folder}: {there} cannot be written ({reason}); give a folder that can") from error
