"""The page in a real browser: it renders, complains of nothing, asks for nothing, and its numbers are the summary's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner

from tests.support.browser import CHROMIUM, Page, browser
from tests.support.runs import ARTIFACTS, INTERRUPTED, RUN, WHOLE, copy_to, edit
from tune_gpu.artifacts.reading import read_run
from tune_gpu.cli.main import main

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
DRAWN = "document.body && document.body.dataset.drawn"
PLOTS = "[...document.querySelectorAll('.plot')].filter(e => e.querySelector('.main-svg')).map(e => e.dataset.plot)"
T = TypeVar("T")


def made(folder: Path, run_id: str = RUN) -> Path:
    """The page of a run in this copy of the artifacts."""
    ended = CliRunner().invoke(main, ["report", run_id, f"run.artifacts_dir={folder}"])
    assert ended.exit_code == 0, ended.output
    return folder / "spica_gpu_allocation" / run_id / "report.html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    copy_to(folder)
    return made(folder)


def visit(path: Path, work: Callable[[Page], Awaitable[T]], **look: Any) -> tuple[T, Page]:
    async def go() -> tuple[T, Page]:
        async with browser() as page:
            await page.look(**({"width": 1200} | look))
            await page.open(path.as_uri(), DRAWN)
            return await work(page), page

    return asyncio.run(go())


def at(content: Mapping[str, Any], path: str) -> Any:
    for part in path.split("."):
        content = content[part]
    return content


@needs_browser
def test_the_page_has_the_summarys_numbers_and_needs_no_network(page_file: Path) -> None:
    async def read(page: Page) -> tuple[list[list[str]], int, int, str]:
        facts = await page.evaluate("[...document.querySelectorAll('data[data-path]')].map(e => [e.dataset.path, e.value, e.textContent])")
        plots = await page.evaluate("document.querySelectorAll('.plot').length")
        drawn = await page.evaluate("document.querySelectorAll('.plot .main-svg').length")
        return facts, plots, drawn, await page.evaluate("document.getElementById('verdict').innerText")

    (facts, plots, drawn, verdict), page = visit(page_file, read)
    assert page.seen.console_errors == []
    assert [url for url in page.seen.requests if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()], "nothing but the page itself"
    summary = json.loads((ARTIFACTS / "spica_gpu_allocation" / RUN / "summary.json").read_text())
    assert {"best.fitness", "baseline.fitness", "n_evaluations", "counts.ok", "costs.wall_s"} <= {path for path, _, _ in facts}
    for path, value, text in facts:
        wanted = at(summary, path)
        assert float(value) == wanted, path
        assert float(text) == pytest.approx(wanted, abs=0.5 if isinstance(wanted, int) or path == "costs.wall_s" else 5e-5), path
    assert plots == 4, "fitness, latency, front, costs; the forest predicts nothing"
    assert drawn >= plots
    assert "Measured on cpu" in verdict


@needs_browser
def test_an_interrupted_run_shows_its_device_and_plan_but_no_decision(tmp_path: Path) -> None:
    copy_to(tmp_path)

    async def read(page: Page) -> tuple[str, list[str], int, str]:
        drawn = await page.evaluate(PLOTS)
        marks = await page.evaluate("document.querySelectorAll('#plot-device .scatterlayer .point').length")
        return await page.evaluate("document.getElementById('verdict').innerText"), drawn, marks, await page.evaluate("document.querySelector('#plot-memory').textContent")

    (verdict, drawn, marks, memory), page = visit(made(tmp_path, INTERRUPTED), read)
    assert "Nothing is decided: the run is interrupted after 5 evaluations." in verdict
    assert drawn == ["fitness", "latency", "pareto", "memory", "device", "costs"], "5 evaluations are too few to say which knob mattered"
    record = read_run(ARTIFACTS, INTERRUPTED)
    seconds = sum(len(line.metrics["device_trace"]["at"]) for line in record.lines)
    assert marks == 3 * seconds, "utilisation, KV cache and memory, each second"
    assert "infeasible" in memory
    assert page.seen.console_errors == []


@needs_browser
def test_a_confirmed_run_says_so_first_and_has_every_plot(tmp_path: Path) -> None:
    shutil.copytree(ARTIFACTS, tmp_path, dirs_exist_ok=True)

    async def read(page: Page) -> tuple[str, list[str], str]:
        drawn = await page.evaluate(PLOTS)
        return await page.evaluate("document.getElementById('verdict').innerText"), drawn, await page.evaluate("document.body.innerText")

    (verdict, drawn, text), page = visit(made(tmp_path, WHOLE), read)
    comparison = json.loads((ARTIFACTS / "spica_gpu_allocation" / WHOLE / "confirmation.json").read_text())
    assert comparison["sentence"].removeprefix("winner") in verdict
    assert drawn == ["fitness", "latency", "pareto", "importance", "memory", "device", "costs"]
    assert "voice_turn_ms.p95" in text
    assert page.seen.console_errors == []


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_text_stands_out(page_file: Path, dark: bool) -> None:
    async def read(page: Page) -> tuple[int, str, str, str]:
        width = await page.evaluate("document.documentElement.scrollWidth")
        colours = [await page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")]
        return width, *colours, await page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")

    (width, ink, paper, label), page = visit(page_file, read, width=390, dark=dark)
    assert width <= 390
    assert (luminance(paper) < 0.1) is dark
    assert contrast(ink, paper) > 7
    assert contrast(label, paper) > 4.5, "figures follow the colour scheme"
    assert page.seen.console_errors == []


@needs_browser
def test_what_an_artifact_holds_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'><b>bold</b>"
    folder = copy_to(tmp_path)
    for path in folder.glob("gen_*_candidates.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["params"][evil] = evil
            if line["failure"]:
                line["failure"] |= {"message": evil, "evidence": evil, "kind": evil}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    edit(folder / "summary.json", lambda content: [content[name]["params"].update({evil: evil}) for name in ("best", "baseline")])
    edit(folder / "manifest.json", lambda content: content["devices"][0].update(name=evil))
    edit(folder / "plan.json", lambda content: content.update(refused=[{"params": {evil: evil}, "reason": evil}]))

    async def read(page: Page) -> tuple[bool, int, bool]:
        injected = "document.querySelectorAll('main img, main script, main b').length"
        return await page.evaluate("'broken' in window"), await page.evaluate(injected), await page.evaluate("document.body.innerText.includes('onerror=')")

    (broken, elements, shown), page = visit(made(tmp_path), read)
    assert not broken
    assert elements == 0
    assert shown, "it is there, as text"
    assert page.seen.console_errors == []


def channels(colour: str) -> list[float]:
    return [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (channel / 255 for channel in channels(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio (WCAG 2.1)."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
