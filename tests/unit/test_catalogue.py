"""A space's catalogue: the default pair's names are those of version 1, any other space has the same metrics for each of its services."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tune_gpu import metrics
from tune_gpu.common.catalogue import FITNESS_TERMS, Catalogue
from tune_gpu.common.metric import STATISTICS, Metric, Protocol
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.evaluation.objective import metric_at
from tune_gpu.metrics import PAIR, catalogue_of

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "default_pair_metrics.json").read_text(encoding="utf-8"))
"""The content of the global lists of version 1."""
TWO_LLMS = catalogue_of({"small": Protocol.CHAT, "large": Protocol.COMPLETION})
ASSISTANT = catalogue_of(
    {"stt": Protocol.TRANSCRIPTION, "llm": Protocol.CHAT, "tts": Protocol.SPEECH, "embed": Protocol.EMBEDDING, "cache": None}
)
PROTOCOLS = (Protocol.TRANSCRIPTION, Protocol.CHAT, Protocol.COMPLETION, Protocol.SPEECH, Protocol.EMBEDDING, None)
SERVICES = st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}", fullmatch=True), st.sampled_from(PROTOCOLS), min_size=1, max_size=5)


@st.composite
def spaces(draw: st.DrawFn) -> Catalogue:
    services = draw(SERVICES)
    assume(not services.keys() & {*metrics.CATALOGUE, FITNESS_TERMS})
    return catalogue_of(services)


def test_the_default_pair_names_everything_as_version_1_did() -> None:
    found = {
        "names": [metric.name for metric in PAIR.every()],
        "of_turns": {metric.name: metric.of_turn for metric in PAIR.of_turns()},
        "compared": [metric.compared_name for metric in PAIR.compared()],
        "turn_keys": {metric.name: metric.turn_key for metric in PAIR.compared() if metric.of_turn},
        "tolerances": PAIR.tolerances(),
        "terms": {name: metric.name for name, metric in PAIR.terms().items()},
        "gauges": {name: [metric.gauge_help, metric.line_path] for name, (metric,) in PAIR.gauges().items()},
        "objective_paths": {path: metric.name for path, metric in PAIR.objective_paths().items()},
        "headings": {metric.name: metric.heading for metric in PAIR.every()},
        "columns": {metric.name: metric.column.title for metric in PAIR.every() if metric.column},
        "standard_metrics": [metric.name for metric in standard_metrics(95)],
    }
    for part, golden in GOLDEN.items():  # later metrics may have joined them
        now: Any = found[part]
        assert (golden == {key: now.get(key) for key in golden} if isinstance(golden, dict) else golden == [name for name in now if name in golden]), part
    assert not any(metric.service or metric.declared for metric in PAIR.every())


def test_the_default_pair_is_one_in_any_order() -> None:
    assert catalogue_of(dict(reversed(list(metrics.DEFAULT_PAIR.items())))) is PAIR
    assert catalogue_of({"vllm": Protocol.CHAT, "whisper": Protocol.TRANSCRIPTION}) is not PAIR
    assert (metrics.label_of("whisper"), metrics.label_of("vllm")) == ("stt", "llm")
    assert metrics.label_of("vllm", {"vllm": Protocol.CHAT}) == "vllm"


@given(spaces())
def test_a_name_is_unique_and_leads_back_to_its_metric(catalogue: Catalogue) -> None:
    names = [metric.name for metric in catalogue.every()]
    assert len(names) == len(set(names))
    for metric in catalogue.every():
        assert catalogue.metric(metric.name) is metric
        assert all(catalogue.metric(path) is metric for path in metric.paths)
        entry = metrics.CATALOGUE[metric.declared or metric.name]
        assert catalogue.name(entry, metric.service) == metric.name
        assert (catalogue.label(metric.service) if metric.service else "") == metric.of_turn.rpartition(".")[0] or not metric.of_turn


@given(spaces())
def test_every_path_of_a_space_leads_to_a_number_of_its_own(catalogue: Catalogue) -> None:
    paths = catalogue.objective_paths()
    numbers = {path: float(number) for number, path in enumerate(paths)}
    record = measured(catalogue, numbers)
    found = {path: metric_at(record["metrics"], path) for path, metric in paths.items() if not metric.of_line or path.startswith(FITNESS_TERMS)}
    assert found == {path: numbers[path] for path in found}
    for shown in catalogue.gauges().values():
        for metric in shown:
            assert metric.of_line or metric_at(record, metric.line_path) == numbers.get(metric.line_path.removeprefix("metrics."))


def measured(catalogue: Catalogue, numbers: Mapping[str, float]) -> dict[str, Any]:
    """A candidate's line with these numbers."""
    found: dict[str, Any] = {FITNESS_TERMS: {name: numbers[f"{FITNESS_TERMS}.{name}"] for name in catalogue.terms()}}
    for metric in catalogue.every():
        if metric.parts is not None:
            found[metric.name] = {part: numbers[metric.at(part)] for part in metric.parts.values()}
        elif metric.objective and not metric.of_line:
            found[metric.name] = {each: numbers[metric.at(each)] for each in STATISTICS} if metric.many else numbers[metric.name]
    return {"metrics": found}


@given(spaces())
def test_a_gauge_has_a_valid_name_and_one_metric_a_service(catalogue: Catalogue) -> None:
    for name, shown in catalogue.gauges().items():
        assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name)
        services = [metric.service for metric in shown]
        assert len(services) == len(set(services))
        assert services == [""] or all(services)
        assert not any(re.search(rf"(^|_){re.escape(service)}(_|$)", name) for service in services if service and len(service) > 5)


@given(spaces())
def test_a_comparison_finds_its_metrics_by_their_names(catalogue: Catalogue) -> None:
    compared = standard_metrics(95, catalogue=catalogue, sessions=True)
    names = [metric.name for metric in compared]
    assert len(names) == len(set(names))
    assert catalogue.tolerances().keys() == {metric.entry.compared_name for metric in compared}
    for metric in compared:
        assert catalogue.in_comparison(metric.name) is metric.entry
        entry = metrics.finding_entry(metric.name)
        assert entry is not None
        assert entry.compared is not None
        assert entry.compared.statistic is metric.compared.statistic
        assert (entry.compared.phrases is None) == (metric.compared.phrases is None)


@given(spaces())
def test_a_term_is_named_after_its_service_and_rests_on_its_metric(catalogue: Catalogue) -> None:
    for name, metric in catalogue.terms().items():
        assert name.startswith(f"{metric.service}.") if metric.service else name in ("stability", "capacity", "efficiency", "voice_to_voice")
        assert catalogue.objective_paths()[f"{FITNESS_TERMS}.{name}"] is metric


def test_metrics_of_other_services_carry_the_services_name() -> None:
    names = {metric.name for metric in TWO_LLMS.every()}
    assert {"small.latency_ms", "large.latency_ms", "small.ttft_ms", "large.kv_cache_tokens", "turn_ms", "gpu_utilization", "fitness"} <= names
    assert not {"ttft_ms", "stt_latency_ms", "voice_turn_ms", "small.wer"} & names
    assert TWO_LLMS.of(metrics.SERVICE_MEMORY).paths == ("service_memory_mib.small", "service_memory_mib.large")
    assert TWO_LLMS.of(metrics.INTERFERENCE).paths == ("interference_ratio.small", "interference_ratio.large")
    assert TWO_LLMS.of(metrics.TTFT, "large").of_turn == "large.ttft_ms"
    assert TWO_LLMS.key(metrics.ERROR_UNIT, "ears") == "ears.wer_unit"
    assert [*TWO_LLMS.terms()] == [
        "small.latency", "large.latency", "small.ttft", "large.ttft", "small.itl", "large.itl", "stability", "voice_to_voice", "small.background", "large.background", "capacity", "efficiency",
    ]  # fmt: skip


def test_an_assistant_has_the_metrics_of_every_protocol() -> None:
    names = {metric.name for metric in ASSISTANT.every()}
    assert {"stt.latency_ms", "stt.wer", "llm.ttft_ms", "tts.first_audio_ms", "tts.latency_ms", "tts.rtf", "embed.latency_ms"} <= names
    assert ASSISTANT.of(metrics.SERVICE_MEMORY).paths[-1] == "service_memory_mib.cache", "a service that no request drives has memory, too"
    assert "interference_ratio.cache" not in ASSISTANT.objective_paths()
    assert [*ASSISTANT.terms()] == [
        "stt.latency", "llm.latency", "llm.ttft", "llm.itl", "tts.first_audio", "tts.latency", "embed.latency", "stability", "voice_to_voice", "llm.background", "stt.wer", "capacity",
        "efficiency",
    ]  # fmt: skip


def test_a_text_names_the_service_only_where_several_have_the_metric() -> None:
    def shown(catalogue: Catalogue, entry: Metric, service: str) -> tuple[str, str]:
        metric = catalogue.of(entry, service)
        return metric.label, metric.column.title if metric.column else ""

    assert shown(TWO_LLMS, metrics.TTFT, "small") == ("first token of small", "")
    assert shown(TWO_LLMS, metrics.LLM_LATENCY, "small") == ("LLM answer of small", "small")
    assert shown(ASSISTANT, metrics.LLM_LATENCY, "llm") == ("LLM answer", "llm")
    assert shown(ASSISTANT, metrics.WER, "stt") == ("word error rate", "wer")
    ears = catalogue_of({"left": Protocol.TRANSCRIPTION, "right": Protocol.TRANSCRIPTION})
    assert shown(ears, metrics.WER, "right") == ("word error rate of right", "right wer")
    compared = ears.of(metrics.WER, "right").compared
    assert compared is not None
    assert compared.phrases is not None
    assert compared.phrases.same == "transcribes no worse (right)"


def test_a_service_without_the_metric_is_refused() -> None:
    with pytest.raises(KeyError, match="wer of llm"):
        ASSISTANT.of(metrics.WER, "llm")
