"""`whisper.language`: only codes that faster-whisper takes, and the clips' language known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.config.languages import LANGUAGES, check_language, rate_name, spoken_language
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.experiment.checks import check_config
from tune_gpu.experiment.space_check import check_space

ONLY_BASE = ["parameters.whisper_model_size.values=[base]", "baseline.whisper_model_size=base"]


def checked(*overrides: str) -> ExperimentConfig:
    config = load_config("spica_gpu_allocation", [*ONLY_BASE, *overrides], "cpu")
    check_space(config)
    return config


def test_the_table_is_that_of_faster_whisper() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert set(LANGUAGES) == set(_LANGUAGE_CODES)


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"no"}))
def test_every_code_of_whisper_is_accepted(language: str) -> None:
    assert check_language("whisper.language", language) == language


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("jp", r"Use ja \(Japanese\)"), ("japanese", r"Use ja \(Japanese\)"), ("JA", r"Use ja"), ("cn", r"Use zh \(Chinese\)"), ("en-US", r"Use en \(English\)"),
        ("pt_BR", r"Use pt"), ("zh-Hant-TW", "Use zh"), ("Germn", r"Did you mean de \(German\)\?"), ("nb", r"Use no \(Norwegian\)"), ("jv", r"Use jw \(Javanese\)"),
        ("iw", "Use he"), ("kr", "Use ko"), ("deu", "Use de"), ("xx", "Known are af, am"), ("auto", "Give its code"), ("''", "Give its code"),
        ("no", r"""without quotes as false\. Write it in quotes: "no" \(in a shell KEY='"no"'\)"""), ("off", "as false"), ("yes", "as true"), ("7", "Known are"),
    ],
)  # fmt: skip
def test_what_is_no_code_is_refused_with_the_one_that_was_meant(given: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"services\.whisper\.language.*{message}") as caught:
        checked(f"services.whisper.language={given}")
    assert "\n" not in str(caught.value)


def test_norwegian_is_read_and_kept_in_its_quotes(tmp_path: Path) -> None:
    config = checked('services.whisper.language="no"')
    assert config.services.whisper.language == "no"
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    assert load_config(str(tmp_path / "config.yaml"), []) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [("[en,jp]", r"parameters\.spoken: whisper\.language=jp: .*Use ja"), ("[en,no]", r"parameters\.spoken: whisper\.language: YAML reads"), ("[en,null]", "Give its code")],
)
def test_values_of_a_knob_are_checked_alike(values: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked("parameters.spoken.target=whisper.language", f"parameters.spoken.values={values}", "baseline.spoken=en")


def test_a_text_that_yaml_takes_for_a_truth_value_is_refused() -> None:
    """Norway is not alone: `on`, `off` and `yes` in any setting of text were kept as "True" and "False"."""
    with pytest.raises(UserError, match=r"services\.vllm\.dtype: YAML reads yes, on or true without quotes as true"):
        checked("services.vllm.dtype=on")


@pytest.mark.parametrize(
    "overrides",
    [
        ("services.whisper.model=tiny.en",),
        ("parameters.whisper_model_size.values=[base,tiny.en]",),
        ("parameters.whisper_model_size.values=[distil-small.en]", "baseline.whisper_model_size=distil-small.en"),
    ],
)
def test_a_model_of_english_only_takes_no_other_language(overrides: tuple[str, ...]) -> None:
    config = load_config("spica_gpu_allocation", [*ONLY_BASE, "services.whisper.language=de", *overrides], "cpu")
    if len(overrides) == 1 and overrides[0].startswith("services"):
        config.parameters = {name: knob for name, knob in config.parameters.items() if knob.target != "whisper.model"}
        config.baseline = {}
    with pytest.raises(UserError, match=r"whisper\.model=\S+\.en: it knows English only, not whisper\.language=de"):
        check_space(config)


def test_the_language_of_the_clips_decides_how_errors_are_counted() -> None:
    assert spoken_language(checked("services.whisper.language=de")) == "en", "the packaged clips are English, whatever Whisper is told"
    assert spoken_language(checked("services.whisper.language=th", "workload.audio.source=/clips")) == "th"
    assert spoken_language(checked("workload.audio.source=/clips", "workload.audio.language=zh")) == "zh"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("workload.audio.language=jp", "workload.audio.source=/clips"), r"workload\.audio\.language=jp: .*Use ja"),
        (("workload.audio.language=de",), r"workload\.audio\.language=de: the clips of workload\.audio\.source=samples are English"),
        (
            ("parameters.spoken.target=whisper.language", "parameters.spoken.values=[en,de]", "baseline.spoken=en", "workload.audio.source=/clips"),
            r"workload\.audio\.language: whisper\.language varies",
        ),
    ],
)
def test_clips_of_an_unknown_language_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(*overrides)


def test_the_check_of_a_run_includes_the_language() -> None:
    with pytest.raises(UserError, match=r"services\.whisper\.language=jp"):
        check_config(load_config("spica_gpu_allocation", ["services.whisper.language=jp"], "cpu"))


def test_the_unit_stands_beside_the_rate_and_names_it() -> None:
    by_unit = {unit: next(metric for metric in standard_metrics(95, unit) if metric.name == "wer").unit for unit in ("word", "character")}
    assert by_unit == {"word": "WER", "character": "CER"}
    assert rate_name(None) == "WER", "lines from before the unit was recorded"
