"""Say which parameters the traffic of a run did not exercise, and which moved nothing beyond the noise. Pure.

Which setting needs which traffic is known to the kinds (`services/exercise.py`). Here their rules get what was measured, and what they answer
is put in terms of the parameters of the space.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from tune_gpu.artifacts.deployments import evidence_of, key_of
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.exercise import ExerciseRecord, UnexercisedRecord
from tune_gpu.common.catalogue import Catalogue
from tune_gpu.common.errors import UserError
from tune_gpu.common.metric import Metric
from tune_gpu.config.loader import config_of
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.space_catalogue import catalogue_for
from tune_gpu.config.targets import Target, settings_with
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import (
    CONCURRENT_CAPACITY,
    KV_CACHE_PEAK,
    KV_CACHE_TOKENS,
    LONGEST_CONTEXT,
    PREEMPTIONS,
    PREFIX_HIT,
    REQUESTS_AT_ONCE,
    WORKING_SET,
)
from tune_gpu.services.exercise import KnowsExercise, Use, greatest
from tune_gpu.services.registry import services_of

_LEVEL = 0.05
"""Two-sided level at which some pair of a parameter's configurations must be shown to differ."""
_MOST_CONFIGURATIONS = 300
"""Above this the pairs are not looked for: it would take seconds, and a space of so many has few that differ in one parameter only."""


def exercise_of(lines: Sequence[EvaluationRecord], config: ExperimentConfig, anchors: Sequence[EvaluationRecord] = ()) -> ExerciseRecord:
    """Return what these evaluations cannot say of the parameters.

    Args:
        lines: all evaluations of the run.
        config: of the run.
        anchors: further deployments of the baseline.
    """
    measured = [line for line in (*lines, *anchors) if line.n_windows]
    return ExerciseRecord(unexercised=tuple(_unexercised(measured, config)), inside_noise=tuple(_inside_noise(lines, anchors)))


def recorded_exercise(
    lines: Sequence[EvaluationRecord], content: Mapping[str, Any], anchors: Sequence[EvaluationRecord] = ()
) -> ExerciseRecord:
    """Return the same for a run that was read from disk. `content` is its `config.yaml`, of which settings that no longer exist are left out."""
    try:
        return exercise_of(lines, config_of({key: content[key] for key in ("services", "parameters")}), anchors)
    except (UserError, OmegaConfBaseException, KeyError, TypeError, ValueError):  # settings of another program: nothing is known of them
        return ExerciseRecord(inside_noise=tuple(_inside_noise(lines, anchors)))


def _unexercised(measured: Sequence[EvaluationRecord], config: ExperimentConfig) -> Iterator[UnexercisedRecord]:
    """Yield what each service's kind says, in terms of the parameters; equal ones with all their reasons."""
    if not measured:
        return
    targets = {name: Target.parse(spec.target) for name, spec in config.parameters.items()}
    reasons: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for service in services_of(config.services):
        if not isinstance(service.kind, KnowsExercise):
            continue
        for found in service.kind.unexercised(list(_uses(service.name, measured, config))):
            names = tuple(name for name, target in targets.items() if target.service == service.name and _setting(target) in found.settings)
            if names:
                reasons.setdefault((names, found.on), []).append(found.why)
    for (names, on), why in reasons.items():
        yield UnexercisedRecord(parameters=names, why=", ".join(dict.fromkeys(why)), on=on)


def _setting(target: Target) -> str:
    return ".".join(part.replace("-", "_") for part in (target.setting, target.entry) if part)


def _uses(service: str, measured: Sequence[EvaluationRecord], config: ExperimentConfig) -> Iterator[Use]:
    """Yield what each evaluation made of a service."""
    catalogue = catalogue_for(config)
    for line in measured:
        settings = {each.name: each.settings for each in services_of(settings_with(config, line.params))}[service]
        yield Use(
            settings,
            longest_context_tokens=_value(line, LONGEST_CONTEXT, service, catalogue),
            cache_tokens=_value(line, KV_CACHE_TOKENS, service, catalogue),
            cache_use_pct=_cache_use(line, service, catalogue),
            callers=1.0 + held if (held := metric_at(line.metrics, CONCURRENT_CAPACITY.name)) is not None else 0.0,
            requests_at_once=metric_at(line.metrics, REQUESTS_AT_ONCE.at(catalogue.label(service))),
            prefix_hit_pct=_value(line, PREFIX_HIT, service, catalogue),
            preemptions=_value(line, PREEMPTIONS, service, catalogue),
        )


def _cache_use(line: EvaluationRecord, service: str, catalogue: Catalogue) -> float | None:
    """Return the share of the cache that was of use. Requests that run are all of it, but for sessions: their prefixes must survive until the next turn."""
    running = _value(line, KV_CACHE_PEAK, service, catalogue)
    return greatest([running, _value(line, WORKING_SET, service, catalogue)]) if line.of_sessions else running


def _value(line: EvaluationRecord, entry: Metric, service: str, catalogue: Catalogue) -> float | None:
    """Return a service's metric in an evaluation, or None if the service has no such metric or it was not measured."""
    try:
        return metric_at(line.metrics, catalogue.name(entry, service))
    except KeyError:
        return None


def _inside_noise(lines: Sequence[EvaluationRecord], anchors: Sequence[EvaluationRecord]) -> Iterator[str]:
    """Yield each parameter with configurations that differ in it alone, none of which are shown to differ in fitness."""
    configurations = {key_of(line.params): line.params for line in (*lines, *anchors) if line.fitness is not None}
    if len(configurations) > _MOST_CONFIGURATIONS:
        return
    evidence = evidence_of(lines, anchors)
    if not evidence.known:
        return  # of a noise that is not known nothing is inside
    for name in dict.fromkeys(name for params in configurations.values() for name in params):
        alike: dict[Hashable, list[Hashable]] = {}
        for key, params in configurations.items():
            alike.setdefault(key_of({other: value for other, value in params.items() if other != name}), []).append(key)
        pairs = [pair for keys in alike.values() for pair in combinations(keys, 2)]
        if pairs and not any(evidence.differ(one, other, _LEVEL / len(pairs)) for one, other in pairs):
            yield name
