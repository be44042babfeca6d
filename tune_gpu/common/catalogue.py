"""The catalogue of metrics, bound to the services of a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tune_gpu.common.metric import Compared, Metric, Phrases, Protocol, Statistic

FITNESS_TERMS = "fitness_terms"
"""The key of the terms of the fitness in the metrics of an evaluation."""
_OF_NO_SERVICE = frozenset({Protocol.TURN, Protocol.DEVICE})


class Catalogue:
    """The metrics of the services of a space.

    The metrics of the default pair are named as in version 1. In any other space a metric of a service is named `<service>.<metric>`, and
    is bound to that service: a copy of the `Metric` with the service's names.

    Args:
        declared: the entries of the catalogue by name. They are read at every use.
        protocols: service -> its protocol, in the order of the space; None for a service that takes no requests.
        labels: service -> its label in turns, errors and names, if these are the services of the default pair.
    """

    def __init__(self, declared: Mapping[str, Metric], protocols: Mapping[str, Protocol | None], labels: Mapping[str, str] | None = None) -> None:
        self.protocols = dict(protocols)
        self._declared, self._labels = declared, labels
        self._bound_from: tuple[Metric, ...] = ()
        self._bound: tuple[Metric, ...] = ()

    def every(self) -> tuple[Metric, ...]:
        """Return all metrics in the order of the report."""
        entries = tuple(self._declared.values())
        if self._bound_from != entries:
            self._bound_from, self._bound = entries, tuple(bound for entry in entries for bound in self._bind(entry))
        return self._bound

    def label(self, service: str) -> str:
        """Return the label of a service in turns, errors and names."""
        return service if self._labels is None else self._labels[service]

    def of(self, entry: Metric, service: str = "") -> Metric:
        """Return the metric of an entry for this service, or the only metric of an entry that belongs to no service.

        Raises:
            KeyError: the service has no such metric.
        """
        for metric in self.of_entry(entry):
            if metric.service in ("", service):
                return metric
        raise KeyError(f"{entry.name} of {service}")

    def of_entry(self, entry: Metric) -> tuple[Metric, ...]:
        """Return the metrics that were bound from an entry, one for each service that has it."""
        return tuple(metric for metric in self.every() if metric.is_entry(entry))

    def name(self, entry: Metric, service: str = "") -> str:
        """Return the key of an entry's value for this service in the metrics of an evaluation. Raise KeyError as `of` does."""
        return self.of(entry, service).name

    @property
    def names_services(self) -> bool:
        """Return whether names and gauges have the service in them. Those of the default pair have not."""
        return self._labels is None

    def key(self, name: str, service: str) -> str:
        """Return the key of a service's property that is not a metric (`wer_unit`) in the metrics of an evaluation."""
        return f"{service}.{name}" if self.names_services else name

    def services(self, protocol: Protocol) -> tuple[str, ...]:
        """Return the services of this protocol."""
        return tuple(service for service, own in self.protocols.items() if own is protocol)

    def metric(self, path: str) -> Metric | None:
        """Return the metric with this name or path (with a statistic or a part), or None if it is unknown."""
        return next((metric for metric in self.every() if path == metric.name or path in metric.paths), None)

    def of_turns(self) -> tuple[Metric, ...]:
        """Return the metrics with a sample for each turn."""
        return tuple(metric for metric in self.every() if metric.of_turn)

    def compared(self) -> tuple[Metric, ...]:
        """Return the metrics of a comparison, those that a user notices first."""
        found = [metric for metric in self.every() if metric.compared and (metric.of_turn or metric.compared.statistic is not Statistic.PERCENTILE)]
        return tuple(sorted(found, key=lambda metric: (not metric.many, metric.many and Protocol.TURN not in metric.protocols)))

    def in_comparison(self, name: str) -> Metric | None:
        """Return the metric that has this name in a comparison, with or without a statistic, or None for an unknown one."""
        return comparison_entry(self.compared(), name)

    def tolerances(self) -> dict[str, float]:
        """Return the defaults of `confirm.tolerances`."""
        return {metric.compared_name: metric.compared.tolerance for metric in self.compared() if metric.compared}

    def terms(self) -> dict[str, Metric]:
        """Return the terms of the fitness, each with its metric."""
        return {metric.term.name: metric for metric in self.every() if metric.term}

    def gauges(self) -> dict[str, tuple[Metric, ...]]:
        """Return the gauges of measured metrics, each with the metrics that it shows: one for each service, or a single one."""
        found: dict[str, tuple[Metric, ...]] = {}
        for metric in self.every():
            if metric.gauge and metric.parts is None:
                found[metric.gauge_name] = (*found.get(metric.gauge_name, ()), metric)
        return found

    def objective_paths(self) -> dict[str, Metric]:
        """Return every path that can be an objective, each with its metric."""
        found = {path: metric for metric in self.every() if metric.objective for path in metric.paths}
        return found | {f"{FITNESS_TERMS}.{name}": metric for name, metric in self.terms().items()}

    def targets(self) -> dict[str, Metric]:
        """Return the metrics that `objective.targets` may name: those with a target, and the latencies of turns."""
        return {metric.name: metric for metric in self.every() if metric.target or metric.default_target is not None or metric.of_turn}

    def limits(self) -> dict[str, Metric]:
        """Return every path that `objective.limits` may name. The statistic of a metric with many samples may be omitted."""
        return {path: metric for metric in self.every() if not metric.of_line for path in (*metric.paths, *((metric.name,) if metric.many else ()))}

    def _bind(self, entry: Metric) -> Iterator[Metric]:
        if self._labels is not None:
            if _OF_NO_SERVICE.union(self.protocols.values()) & set(entry.protocols):
                yield entry
            return
        other = entry.elsewhere
        base = replace(
            entry, declared=entry.name, name=other.name or entry.name, label=other.label or entry.label, help=other.help or entry.help,
            term=other.term or entry.term, default_target=other.target, needs=other.needs or entry.needs,
            compared=entry.compared and replace(entry.compared, turn_key=""),
        )  # fmt: skip
        if entry.parts is not None:
            driven = [service for service, protocol in self.protocols.items() if protocol or Protocol.DEVICE in entry.protocols]
            yield replace(base, parts={service: service for service in driven})
        elif _OF_NO_SERVICE & set(entry.protocols):
            yield replace(base, of_turn=(other.name or entry.of_turn) if entry.of_turn else "")
        else:
            services = [service for service, protocol in self.protocols.items() if protocol in entry.protocols]
            for service in services:
                yield _of_service(base, service, alone=len(services) == 1)


def comparison_entry(metrics: tuple[Metric, ...], name: str) -> Metric | None:
    """Return the metric among these that has this name in a comparison, with or without a statistic, or None."""
    return next((metric for metric in metrics if metric.compared_name in (name, name.rpartition(".")[0])), None)


def _of_service(metric: Metric, service: str, *, alone: bool) -> Metric:
    """Return the metric bound to this service. Its texts name the service, unless no other service has the metric."""
    column, compared, term = metric.column, metric.compared, metric.term
    if column is not None:
        title = service if column.titled_by_service else column.title if alone else f"{service} {column.title}"
        column = replace(column, title=title)
    return replace(
        metric,
        name=f"{service}.{metric.name}",
        label=metric.label if alone else f"{metric.label} of {service}",
        of_turn=f"{service}.{metric.of_turn.rpartition('.')[2]}" if metric.of_turn else "",
        service=service,
        term=replace(term, name=f"{service}.{term.name}") if term else None,
        column=column,
        compared=compared and _compared_of(compared, service, alone=alone),
    )


def _compared_of(compared: Compared, service: str, *, alone: bool) -> Compared:
    phrases = compared.phrases
    if phrases is None or alone:
        return replace(compared, name="")
    return replace(compared, name="", phrases=_phrases_of(phrases, service))


def _phrases_of(phrases: Phrases, service: str) -> Phrases:
    def named(text: str) -> str:
        return f"{text} ({service})" if text else ""

    return replace(phrases, better=named(phrases.better), worse=named(phrases.worse), same=named(phrases.same), undecided=named(phrases.undecided))
