"""What a report says of a run: the summary's numbers, and no more than they bear."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.support import made_run
from tests.support.runs import ARTIFACTS, RUN, copy_to, edit
from tests.support.traffic import rounds
from tune_gpu.artifacts.reading import RunRecord, RunState, read_run
from tune_gpu.artifacts.records.comparison import Comparison
from tune_gpu.artifacts.records.decision import Decision, DecisionVerdict
from tune_gpu.artifacts.records.ends import ComparisonEnd
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.records.findings import EffectRecord, FindingRecord
from tune_gpu.cli.main import main
from tune_gpu.common.process.managed import start_ticks
from tune_gpu.compare.metrics import standard_metrics
from tune_gpu.compare.records import make_comparison as written
from tune_gpu.compare.rounds import Outcome, Rules, findings_of
from tune_gpu.report.data import report_data
from tune_gpu.report.importance import importance_of
from tune_gpu.report.markdown import _table, as_markdown
from tune_gpu.report.page import _embedded, as_html


def report(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["report", *arguments])
    return ended.exit_code, ended.output


@pytest.fixture
def record() -> RunRecord:
    return read_run(ARTIFACTS, RUN)


def with_summary(record: RunRecord, **change: Any) -> RunRecord:
    assert record.summary is not None
    return dataclasses.replace(record, summary=dataclasses.replace(record.summary, **change))


def test_the_time_of_the_run_is_accounted_for_to_the_second(record: RunRecord) -> None:
    data = report_data(record)
    assert record.summary is not None
    assert sum(cost.seconds for cost in data.costs) == pytest.approx(record.summary.costs.wall_s, abs=0.5)
    assert sum(cost.share for cost in data.costs) == pytest.approx(1.0, abs=0.01)
    by_part = {cost.part: cost.seconds for cost in data.costs}
    assert by_part["measured under load"] == pytest.approx(record.summary.costs.load_s, abs=0.5)


def test_the_time_of_the_confirmation_is_a_part_of_its_own(record: RunRecord) -> None:
    assert record.summary is not None
    costs = dataclasses.replace(record.summary.costs, wall_s=record.summary.costs.wall_s + 60.0)
    with_confirmation = dataclasses.replace(with_summary(record, costs=costs), confirmation=dataclasses.replace(compared(record), wall_s=50.0))
    by_part = {cost.part: cost.seconds for cost in report_data(with_confirmation).costs}
    assert by_part["confirming the winner"] == 50.0
    assert sum(by_part.values()) == pytest.approx(costs.wall_s)


def test_a_failure_comes_with_its_kind_its_reason_and_who_had_it(record: RunRecord) -> None:
    failures = {failure["kind"]: failure for failure in report_data(record).failures}
    assert record.summary is not None
    assert {kind: failure["count"] for kind, failure in failures.items()} == record.summary.failures
    assert all(failure["message"] and failure["candidates"] for failure in failures.values())


def test_the_verdict_claims_no_more_than_was_shown(record: RunRecord) -> None:
    assert record.summary is not None
    base = record.summary.baseline
    assert base is not None
    assert base.fitness is not None
    assert report_data(with_summary(record, best=base)).verdict.startswith("Keep what runs today")
    other = next(line for line in record.lines if line.fitness is not None and line.params != base.params)
    best = dataclasses.replace(base, params=other.params, fitness=base.fitness + 1e-6)
    assert "not distinguishable by these deployments" in report_data(with_summary(record, best=best)).verdict
    assert report_data(with_summary(record, best=None)).verdict.startswith("No winner: nothing was feasible")
    assert "Nothing is decided" in report_data(dataclasses.replace(record, summary=None)).verdict


def test_an_ab_comparison_speaks_before_the_search_does(record: RunRecord) -> None:
    shown = dataclasses.replace(compared(record), sentence="winner answers 38 % sooner at p95 (31 … 44)", confirmed_why="shown")
    data = report_data(dataclasses.replace(record, comparison=shown))
    assert data.verdict == "Winner answers 38 % sooner at p95 (31 … 44)."
    assert not [caveat for caveat in data.caveats if "onfirmed" in caveat]
    unsure = report_data(dataclasses.replace(record, comparison=dataclasses.replace(shown, confirmed=False, confirmed_why="the budget ended")))
    assert "Not confirmed: the budget ended." in unsure.caveats


def decision_of(rests_on: str, reason: str = "its voice turn at p95 is 30 % better than today's.") -> Decision:
    effect = EffectRecord(estimate=-30.0, low=-35.0, high=-25.0, ours=7.0, theirs=10.0, n_rounds=4, n_pairs=40, confidence=0.95)
    found = FindingRecord(metric="voice_turn_ms.p95", verdict="better", unit="%", higher_is_better=False, effect=effect, tolerance=10.0)
    return Decision(verdict=DecisionVerdict.DEPLOY, reason=reason, command="tune-gpu promote r", about_s=400.0, rests_on=rests_on, better=(found,))


def test_the_first_screen_decides_and_says_what_it_rests_on(record: RunRecord) -> None:
    decided = with_summary(record, decision=decision_of("confirmation.json"))
    data = report_data(decided)
    first = "Deploy it: its voice turn at p95 is 30 % better than today's."
    shown = "voice turn at p95 from 10 to 7 ms, -30 % (-35 to -25; 4 rounds, 40 turns)"
    for page in (html.unescape(as_html(data)), as_markdown(data).replace("\\", "")):
        places = [page.index(part) for part in (first, "tune-gpu promote r", shown, "confirmation.json", data.verdict)]
        assert places == sorted(places)
        assert "about 6 min 40 s" in page
    assert data.as_dict()["decision"]["verdict"] == "deploy"
    assert report_data(record).decision is None, "of a run that was made before decisions were"


def test_a_later_comparison_with_what_runs_decides(record: RunRecord) -> None:
    decided = with_summary(record, decision=decision_of("confirmation.json"))
    later = dataclasses.replace(compared(record), decision=decision_of("comparison.json"))
    again = dataclasses.replace(decided, comparison=later)
    assert again.decision == later.decision
    arms = {name: dataclasses.replace(arm, params={"x": 3}) for name, arm in later.arms.items()}
    of_another = dataclasses.replace(decided, comparison=dataclasses.replace(later, arms=arms))
    assert of_another.decision == decision_of("confirmation.json"), "that of another winner decides nothing"
    assert dataclasses.replace(again, state=RunState.INTERRUPTED).decision is None


def test_what_the_winners_card_did_not_report_is_a_doubt(record: RunRecord) -> None:
    assert record.summary is not None
    assert record.summary.best is not None
    best = record.summary.best.params

    def lines(unchecked: Any) -> tuple[Any, ...]:
        return tuple(dataclasses.replace(line, metrics={**line.metrics, "unchecked": unchecked}) if line.params == best else line for line in record.lines)

    data = report_data(dataclasses.replace(record, lines=lines(["throttling would not be noticed"])))
    assert data.caveats.count("Not checked: throttling would not be noticed.") == 1
    for nothing in (None, 5, [None]):
        assert not [caveat for caveat in report_data(dataclasses.replace(record, lines=lines(nothing))).caveats if "Not checked" in caveat]


def compared(record: RunRecord) -> Comparison:
    """What `tune-gpu compare` writes, of made-up deployments in which the winner takes 0.6 of the time."""
    rules = Rules(0.95, 3, 40, 600.0, 1, {"voice_turn_ms": 5.0}, 0)
    replicates = tuple(replicate for pair in rounds(1, 30, 20, speed=0.6) for replicate in (pair.ours, pair.theirs))
    outcome = Outcome(ComparisonEnd.DECIDED, "every metric is decided", 30, 0.02, replicates, 600.0)
    findings = findings_of(replicates, "a", "b", standard_metrics(95), alpha=0.02, tolerances=rules.tolerances, seed=0)
    assert record.summary is not None
    assert record.summary.best is not None
    arms = {"a": record.summary.best.params, "b": {"x": 2}}
    return written(run_id=record.run_id, experiment="e", device={"kind": "cpu"}, arms=arms, ours="a", theirs="b", findings=findings,
                      outcome=outcome, rules=rules, neighbours_mib=0.0, confirmed=True, confirmed_why="better by 40 %")  # fmt: skip


@pytest.mark.parametrize("name", ["comparison.json", "confirmation.json"])
def test_the_evidence_of_a_comparison_is_on_the_page(name: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    content = compared(read_run(tmp_path, RUN)).dump()
    (folder / name).write_text(json.dumps(content))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    page = (folder / "report.html").read_text()
    assert code == 0, text
    assert html.escape(content["sentence"][1:]) in page
    assert "Not confirmed" not in page
    assert '<table id="comparison">' in page
    (turn,) = (finding for finding in content["findings"] if finding["metric"] == "voice_turn_ms.p95")
    assert turn["verdict"] == "better"
    assert f"{turn['effect']['low']:+.2f} … {turn['effect']['high']:+.2f}" in page
    assert "each of them by itself holds with 95 % confidence" in page, "of seven that hold with 95 % each, not all need hold"


def test_a_comparison_of_another_winner_is_no_evidence(tmp_path: Path) -> None:
    """It was compared, then gone on with, and found a better one."""
    folder = copy_to(tmp_path)
    content = compared(read_run(tmp_path, RUN)).dump()
    earlier = content | {"arms": content["arms"] | {"a": content["arms"]["a"] | {"params": {"x": 1}}}, "sentence": "winner was another"}
    (folder / "comparison.json").write_text(json.dumps(earlier))
    record = read_run(tmp_path, RUN)
    assert record.evidence is None
    assert "was another" not in report_data(record).verdict
    (folder / "confirmation.json").write_text(json.dumps(content))
    evidence = read_run(tmp_path, RUN).evidence
    assert evidence is not None
    assert evidence.sentence == content["sentence"]


def test_an_effect_that_is_small_in_its_unit_is_not_shown_as_none(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    content = compared(read_run(tmp_path, RUN)).dump()
    finding = {"metric": "wer", "verdict": "worse", "unit": "WER", "higher_is_better": False, "tolerance": 0.0,
               "effect": {"estimate": 0.0042, "low": 0.0011, "high": 0.0073, "ours": 0.11, "theirs": 0.1}}  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(content | {"findings": [finding]}))
    assert report(RUN, f"run.artifacts_dir={tmp_path}")[0] == 0
    page = (folder / "report.html").read_text()
    assert "+0.0042 WER" in page
    assert "+0.0011 … +0.0073" in page


def test_a_foreign_comparison_and_a_field_that_is_no_number_are_one_line(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "comparison.json").write_text(json.dumps(compared(read_run(tmp_path, RUN)).dump() | {"findings": ["better"]}))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert (code, len(text.splitlines())) == (2, 1)
    assert 'comparison.json: not written by this program (`findings` is "better")' in text
    (folder / "comparison.json").unlink()
    edit(folder / "summary.json", lambda content: content["costs"].update(wall_s="long"))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert (code, len(text.splitlines())) == (2, 1)
    assert "summary.json: not written by this program (`costs.wall_s` is \"long\")" in text


def test_json_is_strict_and_a_number_too_large_for_a_page_is_one_line(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    lines = folder / "gen_0_candidates.jsonl"
    first, rest = lines.read_text().split("\n", 1)
    lines.write_text(json.dumps(json.loads(first) | {"of_another_program": math.nan}) + "\n" + rest)
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}", "--format", "json")
    assert code == 0
    assert json.loads(text, parse_constant=pytest.fail)["lines"][0]["of_another_program"] is None
    edit(folder / "summary.json", lambda content: content["costs"].update(wall_s=10**400))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert (code, len(text.splitlines()), "cannot be reported" in text) == (2, 1, True)


def test_a_run_on_a_cpu_says_that_it_says_nothing_about_a_gpu(record: RunRecord) -> None:
    assert any("says nothing about a GPU" in caveat for caveat in report_data(record).caveats)


def lines_of(values: list[tuple[dict[str, Any], float | None]]) -> list[EvaluationRecord]:
    return [made_run.line(f"g0-c{number}", params, fitness) for number, (params, fitness) in enumerate(values)]


def test_the_decisive_knob_is_the_most_important() -> None:
    lines = lines_of([({"share": share, "model": model, "fixed": 1}, share + 0.01 * (model == "a")) for share in (0.1, 0.2, 0.3, 0.4, 0.5) for model in "abc"])
    found = importance_of(lines)
    assert found is not None
    assert found.names[0] == "share"
    assert set(found.names) == {"share", "model"}, "a knob that never moved is not there"
    assert found.mean[0] > 10 * abs(found.mean[1])
    assert found.caution is None


def test_where_noise_rules_or_there_is_too_little_the_importance_says_so() -> None:
    noise = [0.3, 0.9, 0.1, 0.7, 0.2, 0.8, 0.35, 0.6, 0.15, 0.95]
    found = importance_of(lines_of([({"share": index // 5, "model": index // 3}, value) for index, value in enumerate(noise)]))
    assert found is not None
    assert found.caution is not None
    assert importance_of(lines_of([({"share": 0.1 * index}, 0.1 * index) for index in range(7)])) is None
    assert importance_of(lines_of([({"share": 0.1}, 0.1 * index) for index in range(20)])) is None
    assert importance_of(lines_of([({"share": index}, None) for index in range(20)])) is None


def test_json_and_markdown_carry_the_summarys_numbers(record: RunRecord) -> None:
    assert record.summary is not None
    code, text = report(RUN, f"run.artifacts_dir={ARTIFACTS}", "--format", "json")
    content = json.loads(text)
    assert code == 0
    assert content["summary"] == json.loads((record.folder.path / "summary.json").read_text())
    assert [line["candidate_id"] for line in content["lines"]] == [line.candidate_id for line in record.lines]
    code, text = report(RUN, f"run.artifacts_dir={ARTIFACTS}", "--format", "md")
    assert code == 0
    assert text.startswith("# spica\\_gpu\\_allocation, run ")
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in text.splitlines() if row.startswith("| g")}
    assert len(record.lines) == 14
    for line in record.lines:
        fitness = "–" if line.fitness is None else f"{line.fitness:.4f} "
        assert rows[line.candidate_id].split(" | ")[4].startswith(fitness), line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["20200101-000000"], "20200101-000000: no such run in "),
        ([RUN, "search.seed=1"], "search.seed: not known here. Use run.artifacts_dir=DIR only."),
        ([RUN, "-o", "/proc/nowhere/report.html"], "/proc/nowhere/report.html: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    code, text = report(*arguments, f"run.artifacts_dir={ARTIFACTS}") if "search.seed=1" not in arguments else report(*arguments)
    assert code == 2
    assert text.startswith("error: ")
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_run_that_is_going_on_is_not_reported(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    me = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "host": socket.gethostname()}
    edit(folder / "manifest.json", lambda content: content.update(ended_at=None, process=me))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert code == 2
    assert text == f"error: {RUN}: it is still running (process {os.getpid()} on {socket.gethostname()}). Wait until it has ended; tune-gpu status shows that.\n"


@given(st.text())
def test_no_text_ends_the_script_that_holds_the_figures(text: str) -> None:
    embedded = str(_embedded({"a": text}))
    assert not set("<>&") & set(embedded)
    assert json.loads(embedded) == {"a": text}


@given(st.text())
def test_no_text_leaves_its_cell_of_a_markdown_table(text: str) -> None:
    row = _table(("a", "b"), [(text, 1)]).splitlines()
    assert len(row) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row[2])) == 3


def test_a_half_written_summary_is_named_and_leaves_no_report(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    (folder / "report.html").unlink(missing_ok=True)
    (folder / "summary.json").write_text('{"best": ')
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert code == 2
    assert "summary.json: not a whole JSON file" in text
    assert not (folder / "report.html").exists()


def test_a_run_without_a_winner_is_reported_and_exits_with_1(tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    edit(folder / "summary.json", lambda content: content.update(best=None, baseline=None, ties=[]))
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}")
    assert code == 1
    assert "no winner: nothing was feasible in this run" in text
    assert "No winner: nothing was feasible" in (folder / "report.html").read_text()


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_run_that_was_killed_before_anything_is_told_as_such(form: str, tmp_path: Path) -> None:
    folder = copy_to(tmp_path)
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    out = tmp_path / "out"
    code, text = report(RUN, f"run.artifacts_dir={tmp_path}", "--format", form, "-o", str(out))
    assert code == 0, text
    assert "the run is killed after 0 evaluations" in out.read_text()


def test_a_rate_of_characters_is_called_one(record: RunRecord) -> None:
    lines = [dataclasses.replace(line, metrics={**line.metrics, "wer_unit": "character"}) if line.fitness is not None else line for line in record.lines]
    characters = report_data(dataclasses.replace(record, lines=tuple(lines)))
    assert (characters.error_rate, report_data(record).error_rate) == ("CER", "WER")
    assert "character error rate" in {row.label for row in characters.rows}
    assert "word error rate" in {row.label for row in report_data(record).rows}
    assert '<th class="n">CER</th>' in as_html(characters)
    assert "character error rate" in as_markdown(characters)
