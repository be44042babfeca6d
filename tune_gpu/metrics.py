"""The catalogue of metrics: each is declared here once, and every list of metrics is computed from this one.

The search's objectives, the terms and constraints of the fitness, the comparison and its tolerances, the report, the live table, Prometheus
and the Grafana dashboard read it, bound to the services of a space (`catalogue_of`). To add a metric, add one entry: by default it appears
in all of them but the live table. A metric whose sample is an attribute of a turn (`of_turn`) is measured without further code. For any
other, the module that measures it stores the value in the metrics of an evaluation, under its name in the space's catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from tune_gpu.common.catalogue import Catalogue, comparison_entry
from tune_gpu.common.default_pair import LLM, STT
from tune_gpu.common.metric import (
    Better,
    Column,
    Compared,
    Elsewhere,
    Gauge,
    Limit,
    Metric,
    Needs,
    Phrases,
    Protocol,
    Reading,
    Reported,
    Shape,
    Statistic,
    Term,
)

ERROR_UNIT = "wer_unit"
"""The key in the metrics of an evaluation for the unit of recognition errors: `word` or `character`."""
ENDED_EARLY_PCT = "ended_early_pct"
"""The key in the metrics of an evaluation for the share of an LLM's answers that ended before the length asked for; missing if none did."""
EVALUATIONS = "tune_gpu_evaluations"
"""Name of the counter of evaluations on Ray's metrics port."""
GENERATION = (Protocol.COMPLETION, Protocol.CHAT)
DEFAULT_PAIR: Mapping[str, Protocol] = {member.name: member.protocol for member in (STT, LLM)}
"""The services of version 1. Their metrics keep names without the service as prefix."""
_LABELS: Mapping[str, str] = {member.name: member.label for member in (STT, LLM)}
"""Labels of these services in turns, errors and names. The label of any other service is its name."""
CATALOGUE: dict[str, Metric] = {}
"""Name -> metric, in the order of the report."""


def _add(metric: Metric) -> Metric:
    return CATALOGUE.setdefault(metric.name, metric)


STT_LATENCY = _add(Metric(
    "stt_latency_ms", (Protocol.TRANSCRIPTION,), "speech to text", "Speech to text", "ms", many=True, of_turn="stt.latency_ms",
    elsewhere=Elsewhere("latency_ms", term=Term("latency", Shape.FALLING)), target="stt_latency_target_ms", term=Term("stt_latency", Shape.FALLING), compared=Compared(turn_key="stt_ms"), reported=Reported(plotted=True),
    column=Column("stt", titled_by_service=True), gauge=Gauge(legend="speech to text"),
))  # fmt: skip
RTF = _add(Metric(
    "rtf", (Protocol.TRANSCRIPTION,), "real-time factor", "Transcription time as a share of the speech", many=True, of_turn="stt.rtf",
    compared=None, reported=None, gauge=None,
))  # fmt: skip
LLM_LATENCY = _add(Metric(
    "llm_latency_ms", GENERATION, "LLM answer", "LLM answer", "ms", many=True, of_turn="llm.latency_ms",
    elsewhere=Elsewhere("latency_ms", term=Term("latency", Shape.FALLING)), target="llm_latency_target_ms", term=Term("llm_latency", Shape.FALLING), compared=Compared(turn_key="llm_ms"), reported=Reported(plotted=True),
    column=Column("llm", titled_by_service=True), gauge=Gauge(legend="LLM"),
))  # fmt: skip
TTFT = _add(Metric(
    "ttft_ms", GENERATION, "first token", "Time to first token", "ms", many=True, of_turn="llm.ttft_ms", target="ttft_target_ms",
    elsewhere=Elsewhere(term=Term("ttft", Shape.FALLING)), reported=Reported(at=("p95",)), gauge=Gauge(legend="first token"),
))  # fmt: skip
ITL = _add(Metric(
    "itl_ms", GENERATION, "time between tokens", "Time between tokens", "ms", many=True, elsewhere=Elsewhere(term=Term("itl", Shape.FALLING), target=50.0),
    compared=None, reported=None, gauge=None,
))  # fmt: skip
FIRST_AUDIO = _add(Metric(
    "first_audio_ms", (Protocol.SPEECH,), "first audio", "Time to the first audio", "ms", many=True, of_turn="tts.first_audio_ms",
    elsewhere=Elsewhere(term=Term("first_audio", Shape.FALLING), target=500.0), reported=Reported(at=("p95",)), gauge=Gauge(legend="first audio"),
))  # fmt: skip
SPEECH_LATENCY = _add(Metric(
    "speech_latency_ms", (Protocol.SPEECH,), "speech synthesis", "Speech synthesis", "ms", many=True, of_turn="tts.latency_ms",
    elsewhere=Elsewhere("latency_ms", term=Term("latency", Shape.FALLING), target=2000.0), reported=Reported(plotted=True),
    column=Column("tts", titled_by_service=True), gauge=Gauge(legend="speech synthesis"),
))  # fmt: skip
SPEECH_RTF = _add(Metric(
    "speech_rtf", (Protocol.SPEECH,), "real-time factor of the synthesis", "Synthesis time as a share of the audio", many=True, of_turn="tts.rtf",
    elsewhere=Elsewhere("rtf"), compared=None, reported=None, gauge=None,
))  # fmt: skip
EMBEDDING_LATENCY = _add(Metric(
    "embedding_latency_ms", (Protocol.EMBEDDING,), "embedding", "Embedding", "ms", many=True, of_turn="embed.latency_ms",
    elsewhere=Elsewhere("latency_ms", term=Term("latency", Shape.FALLING), target=100.0), reported=Reported(plotted=True),
    column=Column("embed", titled_by_service=True), gauge=Gauge(legend="embedding"),
))  # fmt: skip
VOICE_TURN = _add(Metric(
    "voice_turn_ms", (Protocol.TURN,), "voice turn", "End of speech to the first token", "ms", many=True, of_turn="voice_turn_ms",
    elsewhere=Elsewhere("turn_ms", "turn", "From the time a turn is due to the first output of its last stage"),
    term=Term("stability", Shape.STEADY), compared=Compared(turn_key="turn_ms", median_too=True), reported=Reported(plotted=True, each=True),
    column=Column("turn", narrow=True), gauge=Gauge(legend="turn"),
))  # fmt: skip
VOICE_TO_VOICE = _add(Metric(
    "voice_to_voice_ms", (Protocol.TURN,), "voice to voice", "End of speech to the first audio of the answer, or to its first sentence without a synthesis", "ms", many=True,
    of_turn="voice_to_voice_ms", elsewhere=Elsewhere(term=Term("voice_to_voice", Shape.FALLING), target=800.0), needs=Needs(sessions=True),
    compared=Compared(median_too=True), reported=Reported(plotted=True), gauge=Gauge(legend="voice to voice"),
))  # fmt: skip
STALLS = _add(Metric(
    "stall_ms", (Protocol.TURN,), "stalls of the playback", "Time for which the playback of an answer waited for its next part", "ms", many=True, of_turn="stall_ms",
    needs=Needs(sessions=True), compared=None, gauge=Gauge(legend="stalls"),
))  # fmt: skip
PROMPT_TOKENS = _add(Metric(
    "prompt_tokens", GENERATION, "tokens of a prompt", "Tokens of a prompt", better=Better.NEITHER, many=True, of_turn="llm.prompt_tokens", compared=None, gauge=None,
))  # fmt: skip
LONGEST_CONTEXT = _add(Metric(
    "longest_context_tokens", GENERATION, "tokens of the longest prompt and its answer", "Most tokens of a prompt together with its answer.", better=Better.NEITHER,
    compared=None, reported=None, gauge=None,
))  # fmt: skip
BACKGROUND_LATENCY = _add(Metric(
    "background_latency_ms", GENERATION, "background answer", "LLM answer to a background request", "ms", many=True,
    elsewhere=Elsewhere(term=Term("background", Shape.FALLING), target=1000.0, needs=Needs()),
    needs=Needs("workload.background_rate_per_s"), compared=None, reported=None, gauge=None,
))  # fmt: skip
GENERATOR_LAG = _add(Metric(
    "generator_lag_ms", (Protocol.TURN,), "lag of the load generator", "Time by which the load generator was late", "ms", many=True,
    compared=None, reported=None, gauge=None,
))  # fmt: skip
WER = _add(Metric(
    "wer", (Protocol.TRANSCRIPTION,), "word error rate", "Word error rate, a share; a character error rate where the line's wer_unit says so.",
    target="wer_target", term=Term("wer", Shape.FALLING), limit=Limit("max_wer", 0.01), counts_errors=True,
    compared=Compared(
        Statistic.ERRORS_PER_WORD, unit="WER", digits=4, tolerance=0.01,
        phrases=Phrases(
            "transcribes better ({amount} fewer errors in 100 {unit}s)", "transcribes worse ({amount} more errors in 100 {unit}s)",
            "transcribes no worse", "leaves open how it transcribes", scale=100.0, not_worse_is_same=True,
        ),
    ),
    reported=Reported(digits=4, each=True), column=Column("wer", 3), gauge=Gauge("word_error_rate"),
))  # fmt: skip
FAILED_PCT = _add(Metric(
    "failed_pct", (Protocol.TURN,), "failed requests", "Share of the requests that failed, per cent.", "%", limit=Limit("max_failed_requests_pct", 1.0), objective=False,
    compared=Compared(
        Statistic.SHARE_OF_TURNS, unit="% points", tolerance=0.5,
        phrases=Phrases("fails fewer turns ({amount} points)", "fails more turns ({amount} points)"),
    ),
    reported=None, gauge=None,
))  # fmt: skip
"""Computed from two counts, which an evaluation stores."""
CONCURRENT_CAPACITY = _add(Metric(
    "concurrent_capacity", (Protocol.TURN,), "simultaneous sessions within the targets", "Simultaneous voice sessions within the latency targets.",
    elsewhere=Elsewhere(help="Simultaneous sessions within the latency targets."),
    better=Better.HIGHER, needs=Needs("workload.capacity_step_s"), zero=" (one alone misses a latency target)", compared=None, column=Column("sessions"),
    gauge=Gauge("concurrent_sessions"), at_least="capacity_at_ceiling",
))  # fmt: skip
CAPACITY = _add(Metric(
    "capacity_continuous", (Protocol.TURN,), "capacity in simultaneous sessions", "Simultaneous voice sessions, with how near the next was.", better=Better.HIGHER,
    needs=Needs("workload.capacity_step_s"), target="capacity_target_sessions", term=Term("capacity", Shape.RISING), at_least="capacity_at_ceiling",
    compared=Compared(
        Statistic.MEAN_OF_ROUNDS, name="capacity", unit="callers", tolerance=0.5,
        phrases=Phrases("serves {count} more caller{s}", "serves {count} fewer caller{s}", "serves as many callers", "leaves open how many callers it serves"),
    ),
    reported=None, gauge=None,
))  # fmt: skip
TOKENS_PER_S = _add(Metric(
    "tokens_per_s", GENERATION, "LLM tokens a second", "Tokens a second.", better=Better.HIGHER, compared=None, reported=Reported(digits=1), gauge=None,
))  # fmt: skip
GPU_UTILIZATION = _add(Metric(
    "gpu_utilization", (Protocol.DEVICE,), "device utilisation", "Mean utilisation of the device, per cent.", "%", Better.NEITHER,
    needs=Needs(reading=Reading.UTILIZATION), target="utilization_target_pct", term=Term("efficiency", Shape.NEAR),
    compared=None, reported=Reported(digits=1), gauge=None,
))  # fmt: skip
MEMORY_USED = _add(Metric(
    "memory_used_mib", (Protocol.DEVICE,), "device memory at its peak", "Most memory of the device in use, MiB.", "MiB", Better.NEITHER,
    needs=Needs(reading=Reading.MEMORY), compared=None, gauge=None,
))  # fmt: skip
SERVICE_MEMORY = _add(Metric(
    "service_memory_mib", (Protocol.DEVICE,), "memory of a service at its peak", "Most memory of the service in use, MiB.", "MiB", Better.NEITHER,
    parts={member.name: member.name for member in (LLM, STT)}, needs=Needs(reading=Reading.PROCESS_MEMORY), compared=None, reported=None, gauge=None,
))  # fmt: skip
KV_CACHE_PEAK = _add(Metric(
    "kv_cache_peak_pct", GENERATION, "KV cache at its fullest", "Largest share of the KV cache in use, per cent.", "%", Better.NEITHER,
    compared=None, reported=Reported(digits=1), gauge=None,
))  # fmt: skip
KV_CACHE_TOKENS = _add(Metric(
    "kv_cache_tokens", GENERATION, "tokens in the KV cache", "Tokens that the KV cache holds.", better=Better.HIGHER, compared=None, reported=None, gauge=None
))  # fmt: skip
KV_MAX_CONCURRENCY = _add(Metric(
    "kv_max_concurrency", GENERATION, "sequences in the KV cache", "Sequences of the whole context that the KV cache holds.", better=Better.HIGHER,
    compared=None, reported=None, gauge=None,
))  # fmt: skip
PREFIX_HIT = _add(Metric(
    "prefix_hit_pct", GENERATION, "prompt tokens from the prefix cache", "Share of the prompt tokens that the prefix cache had, per cent.", "%", Better.HIGHER,
    compared=None, reported=Reported(digits=1),
))  # fmt: skip
PREFIX_OF_IDEAL = _add(Metric(
    "prefix_hit_of_ideal_pct", GENERATION, "hits of the prefix cache, of those that were possible", "Hits of the prefix cache as a share of the plan's ideal, per cent.", "%",
    Better.HIGHER, needs=Needs(sessions=True), compared=None, reported=Reported(digits=1), gauge=Gauge("prefix_hit_of_ideal"),
))  # fmt: skip
WORKING_SET = _add(Metric(
    "working_set_pct", GENERATION, "working set of the conversations, of the KV cache", "Least cache with every possible prefix hit, as a share of the KV cache, per cent.", "%",
    Better.NEITHER, needs=Needs(sessions=True), compared=None, reported=Reported(digits=1), gauge=Gauge("working_set"),
))  # fmt: skip
PREEMPTIONS = _add(Metric("preemptions", GENERATION, "preempted requests", "Requests that lost their place in the KV cache.", compared=None))
QUEUE = _add(Metric(
    "queue_ms", GENERATION, "queue of the engine, mean", "Mean time of a request in the engine's queue, milliseconds.", "ms", compared=None, reported=Reported(digits=1),
))  # fmt: skip
RUNNING_REQUESTS = _add(Metric(
    "running_requests", GENERATION, "requests in a batch, most", "Most requests that the engine worked on, seen once a second.", better=Better.NEITHER, compared=None,
))  # fmt: skip
WAITING_REQUESTS = _add(Metric(
    "waiting_requests", GENERATION, "requests in the queue, most", "Most requests that waited in the engine, seen once a second.", compared=None,
))  # fmt: skip
REQUESTS_AT_ONCE = _add(Metric(
    "requests_at_once", (Protocol.TURN,), "requests in flight, most", "Most requests of the client that a service had at once.", better=Better.NEITHER, parts=_LABELS,
    compared=None, reported=None, gauge=None,
))  # fmt: skip
ENERGY_PER_REQUEST = _add(Metric(
    "energy_per_request_j", (Protocol.DEVICE,), "energy for an answered request", "Energy of the device for each answered request, joules.", "J",
    needs=Needs(card=True, reading=Reading.POWER), compared=None, reported=None, gauge=None,
))  # fmt: skip
N_REQUESTS = _add(Metric("n_requests", (Protocol.TURN,), "requests", "Requests.", better=Better.NEITHER, compared=None, reported=None, gauge=None))
N_TRANSCRIPTS = _add(Metric("n_transcripts", (Protocol.TRANSCRIPTION,), "transcripts", "Transcripts.", better=Better.NEITHER, compared=None, reported=None, gauge=None))
N_CLIPS = _add(Metric(
    "n_clips", (Protocol.TRANSCRIPTION,), "clips", "Different clips in the error rate.", better=Better.NEITHER, compared=None, reported=None, gauge=None,
))  # fmt: skip
N_WORDS = _add(Metric(
    "n_words", (Protocol.TRANSCRIPTION,), "words", "Words of the different clips.", better=Better.NEITHER, compared=None, reported=None, gauge=None,
))  # fmt: skip
OFFERED_TURNS = _add(Metric(
    "offered_turns", (Protocol.TURN,), "offered turns", "Turns that became due.", better=Better.NEITHER, compared=None, gauge=None,
))  # fmt: skip
ACHIEVED_TURNS = _add(Metric(
    "achieved_turns", (Protocol.TURN,), "achieved turns", "Turns that were answered.", better=Better.HIGHER, compared=None, gauge=None,
))  # fmt: skip
CENSORED_TURNS = _add(Metric(
    "censored_turns", (Protocol.TURN,), "turns that the end of a window cut", "Turns that the end of a window cut.", needs=Needs(sessions=True), compared=None, gauge=None,
))  # fmt: skip
CANCELLED = _add(Metric(
    "cancelled_requests", (Protocol.TURN,), "requests that callers cancelled", "Requests that callers cancelled.", better=Better.NEITHER, needs=Needs(sessions=True),
    compared=None, gauge=None,
))  # fmt: skip
WASTED_TOKENS = _add(Metric(
    "wasted_tokens", (Protocol.TURN,), "tokens of cancelled answers", "Tokens of answers that were cancelled or thrown away.", needs=Needs(sessions=True), compared=None,
    gauge=None,
))  # fmt: skip
N_FAILED = _add(Metric("n_failed", (Protocol.TURN,), "failed requests", "Requests that failed.", compared=None, gauge=None))
OOM_EVENTS = _add(Metric(
    "oom_events", (Protocol.DEVICE,), "out-of-memory events", f"Out-of-memory kills, and requests that {STT.title} had no memory for.",
    elsewhere=Elsewhere(help="Out-of-memory kills, and requests that a service had no memory for."),
    compared=None, gauge=Gauge(legend="events", total=True),
))  # fmt: skip
INTERFERENCE = _add(Metric(
    "interference_ratio", (Protocol.TURN,), "latency beside the others, against alone", "p95 of the latency under mixed load, divided by that of the service alone.",
    parts=_LABELS, needs=Needs("workload.solo_window_s"), compared=None, reported=None, gauge=None,
))  # fmt: skip
FITNESS = _add(Metric(
    "fitness", (Protocol.TURN,), "fitness", "Fitness of the candidate's last evaluation.", better=Better.HIGHER, of_line=True,
    compared=Compared(Statistic.MEAN_OF_ROUNDS, unit="fitness", digits=4, tolerance=0.01), reported=None,
    gauge=Gauge(description="Each candidate from the end of its last evaluation on; higher is better."),
))  # fmt: skip
FITNESS_STDERR = _add(Metric(
    "fitness_stderr", (Protocol.TURN,), "standard error of the fitness", "Standard error of the fitness within the evaluation (windows, ramp and clips resampled).",
    of_line=True, objective=False, compared=None, reported=None, gauge=Gauge(description="Within the evaluation. It does not include differences between deployments: see the report."),
))  # fmt: skip


@dataclass(frozen=True)
class LiveGauge:
    """A reading of the device, or of a service, under load."""

    field: str
    """Field of `DeviceSample`, or the name of a service's own gauge."""
    gauge: str
    label: str
    unit: str
    help: str
    panel: str
    description: str = ""
    of_service: bool = False
    """Each service has its own reading."""


LIVE = (
    LiveGauge("utilization_pct", "tune_gpu_device_utilization_pct", "utilisation", "%", "Utilisation of the device under load, per cent.", "Device utilisation"),
    LiveGauge("kv_cache_pct", "tune_gpu_kv_cache_usage_pct", "KV cache in use", "%", "Share of the engine's KV cache in use, per cent.", "KV cache in use", of_service=True),
    LiveGauge("used_mib", "tune_gpu_device_memory_mib", "memory in use", "MiB", "Memory of the device in use, MiB.", "Device memory in use"),
    LiveGauge(
        "clock_mhz", "tune_gpu_device_clock_mhz", "clock", "MHz", "Clock of the card's multiprocessors, MHz.", "Clock and power of the card",
        "A clock that falls under load means a card that is throttled: such windows are measured again.",
    ),
    LiveGauge("power_w", "tune_gpu_device_power_w", "power", "W", "Power draw of the card, watts.", "Clock and power of the card"),
)  # fmt: skip


PAIR = Catalogue(CATALOGUE, DEFAULT_PAIR, _LABELS)
"""The catalogue of the default pair."""


def catalogue_of(protocols: Mapping[str, Protocol | None]) -> Catalogue:
    """Return the catalogue of a space.

    Args:
        protocols: service -> its protocol, in the order of the space. None for a service that takes no requests.
    """
    return PAIR if dict(protocols) == DEFAULT_PAIR else _catalogue(tuple(protocols.items()))


@cache
def _catalogue(protocols: tuple[tuple[str, Protocol | None], ...]) -> Catalogue:
    return Catalogue(CATALOGUE, dict(protocols))


def label_of(service: str, protocols: Mapping[str, Protocol | None] = DEFAULT_PAIR) -> str:
    """Return the label of a service in turns, errors and names of metrics."""
    return catalogue_of(protocols).label(service)


def finding_entry(name: str) -> Metric | None:
    """Return the entry behind a metric of a comparison in any space, or None for an unknown one.

    The service is ignored, so a name such as `llm.latency_ms` gives the entry of some protocol. Its statistic and its phrases are the same
    for all protocols, but not its label.
    """
    return PAIR.in_comparison(name) or comparison_entry(_anywhere(), name) or comparison_entry(_anywhere(), name.partition(".")[2])


def _anywhere() -> tuple[Metric, ...]:
    """Return the compared entries under their names in a space that names its services, without the service."""
    return tuple(replace(entry, name=entry.elsewhere.name or entry.name, declared=entry.name) for entry in CATALOGUE.values() if entry.compared)
