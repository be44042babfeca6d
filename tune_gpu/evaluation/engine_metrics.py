"""The metrics that services report of themselves: cache, queue and preemptions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_gpu.common.catalogue import Catalogue
from tune_gpu.metrics import (
    KV_CACHE_PEAK,
    KV_CACHE_TOKENS,
    KV_MAX_CONCURRENCY,
    PREEMPTIONS,
    PREFIX_HIT,
    PREFIX_OF_IDEAL,
    QUEUE,
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    WORKING_SET,
)
from tune_gpu.services import running
from tune_gpu.telemetry.counters import total_of
from tune_gpu.telemetry.sampler import DeviceStats
from tune_gpu.workload.sessions.ideal import Ideal

Facts = Mapping[str, Mapping[str, Any]]
"""Service -> what it reported of itself when it was ready (`kv_cache_tokens`, `max_concurrency` …)."""
_PEAKS = ((KV_CACHE_PEAK, running.KV_CACHE_PCT), (RUNNING_REQUESTS, running.RUNNING), (WAITING_REQUESTS, running.WAITING))


def engine_metrics(device: Sequence[DeviceStats], facts: Facts, catalogue: Catalogue) -> dict[str, Any]:
    """Return the metrics of each service over these windows; None for what it does not report."""
    found: dict[str, Any] = {}
    counted = [window.counted for window in device]
    for service, protocol in catalogue.protocols.items():
        if protocol not in KV_CACHE_PEAK.protocols:
            continue
        for entry, gauge in _PEAKS:
            found[catalogue.name(entry, service)] = max((peak for window in device if (peak := window.peak_of(service, gauge)) is not None), default=None)
        reported = facts.get(service, {})
        found[catalogue.name(KV_CACHE_TOKENS, service)] = reported.get("kv_cache_tokens")
        found[catalogue.name(KV_MAX_CONCURRENCY, service)] = reported.get("max_concurrency")
        totals = {counter: total_of(counted, service, counter) for counter in (running.PREFIX_HITS, running.PREFIX_QUERIES, running.QUEUED_S, running.QUEUED)}
        found[catalogue.name(PREFIX_HIT, service)] = _ratio(totals[running.PREFIX_HITS], totals[running.PREFIX_QUERIES], 100.0)
        found[catalogue.name(QUEUE, service)] = _ratio(totals[running.QUEUED_S], totals[running.QUEUED], 1e3)
        preempted = total_of(counted, service, running.PREEMPTED)
        found[catalogue.name(PREEMPTIONS, service)] = None if preempted is None else round(preempted)
    return found


def block_sizes(facts: Facts) -> dict[str, int]:
    """Return the size of a cache's blocks in tokens, for each service that reported it."""
    return {service: size for service, reported in facts.items() if isinstance(size := reported.get("block_size"), int) and size > 0}


def ideal_metrics(ideals: Sequence[Mapping[str, Ideal]], measured: Mapping[str, Any], catalogue: Catalogue) -> dict[str, float | None]:
    """Return how much of what was possible each prefix cache did, and how much of its cache the conversations took.

    Args:
        ideals: of all windows.
        measured: the metrics of the same windows.
        catalogue: the metrics of the space.
    """
    found: dict[str, float | None] = {}
    for service, protocol in catalogue.protocols.items():
        if protocol in PREFIX_OF_IDEAL.protocols:
            known = [window[service] for window in ideals if service in window]
            whole = known if known and len(known) == len(ideals) else []
            possible = _ratio(sum(ideal.hit_tokens for ideal in whole), sum(ideal.prompt_tokens for ideal in whole), 100.0)
            found[catalogue.name(PREFIX_OF_IDEAL, service)] = _ratio(measured.get(catalogue.name(PREFIX_HIT, service)), possible, 100.0)
            largest = max((ideal.working_set_tokens for ideal in whole), default=None)
            found[catalogue.name(WORKING_SET, service)] = _ratio(largest, measured.get(catalogue.name(KV_CACHE_TOKENS, service)), 100.0)
    return found


def _ratio(part: float | None, whole: float | None, scale: float) -> float | None:
    """Return the scaled ratio, or None if a part is unknown or nothing was counted."""
    return round(scale * part / whole, 3) if part is not None and whole else None
