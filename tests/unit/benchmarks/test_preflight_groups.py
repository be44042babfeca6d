"""The memory benchmark's report: each file of logged starts and each era of vLLM has its own figures."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tests.benchmarks.preflight import main
from tests.benchmarks.preflight_groups import figures


def case(**changes: object) -> dict[str, object]:
    plain = {"id": "x", "engine": "v1 0.11.0", "verdict_right": True, "abs_error_blind": 0.1, "logged": {"kv_cache_tokens": 100, "verdict": "fits"},
             "predicted": {"verdict": "fits", "certainty": "fits", "kv_cache_tokens_range": [80, 110]}}
    return {**plain, **changes}


def test_without_a_file_every_half_and_era_has_its_own_figures(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, ["--json", str(out)])
    assert done.exit_code == 0, done.output
    groups = json.loads(out.read_text())["groups"]
    assert groups["third_cases"]["cases"] == 20
    assert groups["all"]["cases"] == 108
    assert sum(groups[f"all, {era}"]["cases"] for era in ("before 0.8", "0.8 to 0.19", "0.20 and later")) == 108
    assert "third_cases, 0.20 and later" in done.output


def test_files_without_architectures_are_refused() -> None:
    done = CliRunner().invoke(main, [__file__])
    assert done.exit_code == 2
    assert "--archs" in done.output


def test_a_firm_fit_that_failed_is_named() -> None:
    failed = case(id="f", logged={"kv_cache_tokens": None, "verdict": "does_not_fit"}, verdict_right=False, abs_error_blind=None)
    doubtful = case(id="d", predicted={"verdict": "fits", "certainty": "uncertain"}, logged={"kv_cache_tokens": None, "verdict": "does_not_fit"})
    assert figures([case(), failed, doubtful])["firm_fits_that_failed"] == ["f"]


def test_the_range_counts_only_where_the_tokens_are_known() -> None:
    outside = case(logged={"kv_cache_tokens": 200, "verdict": "fits"})
    found = figures([case(), outside, case(logged={"kv_cache_tokens": None, "verdict": "fits"})])
    assert (found["ranges"], found["ranges_held"]) == (2, 1)
    assert found["median_width"] == (0.3 + 0.15) / 2
