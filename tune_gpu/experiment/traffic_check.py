"""Check that the traffic of a run measures the metrics that decide it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Metric, Protocol
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.config.targets import Target
from tune_gpu.metrics import BACKGROUND_LATENCY
from tune_gpu.services.apis import VOICE
from tune_gpu.workload.stages import Stage, background_of, stages_of


def check_traffic(config: ExperimentConfig) -> tuple[Stage, ...]:
    """Return all services that get requests. Raise UserError for impossible traffic, and for a deciding metric that the traffic does not
    measure."""
    turn, background = stages_of(config), background_of(config)
    catalogue = catalogue_for(config)
    of_turns, beside = {stage.service for stage in turn}, {stage.service for stage in background}
    for key, metric in _judged(config, catalogue):
        if metric.is_entry(BACKGROUND_LATENCY):
            if missing := _services(metric, catalogue, beside):
                raise UserError(f"{key}: {missing} gets no background requests, so it is not measured. Set workload.background.{missing}, or leave the metric out.")
            continue
        measured = of_turns if metric.of_turn else of_turns | beside
        if missing := _services(metric, catalogue, measured):
            raise UserError(
                f"{key}: {missing} is not a stage of a turn (workload.turn=[{', '.join(stage.service for stage in turn)}]), so it is not measured. "
                f"Add {missing} to the turn, or leave the metric out."
            )
    for stage in (*turn, *background):
        if stage.protocol is Protocol.SPEECH:
            _check_voice(config, stage.service)
    return (*turn, *background)


def _check_voice(config: ExperimentConfig, service: str) -> None:
    """Raise UserError if requests are to ask for another voice than the service's own, which may vary."""
    asked, settings = config.workload.voice, config.services[service]
    own = getattr(settings, "voice", None)
    if asked is None:
        return
    for name, spec in config.parameters.items():
        if (target := Target.parse(spec.target)).service == service and (target.entry or target.setting) == VOICE:
            raise UserError(f"workload.voice={asked}: parameters.{name} varies {target}, and each candidate is asked for its own voice. Leave workload.voice out.")
    if own is not None and own != asked:
        raise UserError(f"workload.voice={asked}: {service} is set to the voice {own}, which requests ask for. Leave workload.voice out, or set both alike.")


def _judged(config: ExperimentConfig, catalogue: Catalogue) -> Iterator[tuple[str, Metric]]:
    """Yield every metric that affects the result, with the setting that names it."""
    for name, metric in catalogue.terms().items():
        if (weight := config.objective.weights.get(name, 0.0)) > 0:
            yield f"objective.weights.{name}={weight:g}", metric
    paths, limits = catalogue.objective_paths(), catalogue.limits()
    yield from ((f"search.objectives.{path}", paths[path]) for path in config.search.objectives)
    yield from ((f"objective.limits.{path}", limits[path]) for path in config.objective.limits)


def _services(metric: Metric, catalogue: Catalogue, measured: Collection[str]) -> str:
    """Return the service of a metric if the traffic does not measure it, else ""."""
    own = [metric.service] if metric.service else [name for name, protocol in catalogue.protocols.items() if protocol in metric.protocols]
    return next(iter(own), "") if not set(own) & set(measured) else ""
