"""`tune-gpu compare` with the real services: interrupted once, and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.launches import wait_for
from tests.support.made_run import EXPERIMENT, FAST, QUICK, RUN_ID, SLOW, made_run
from tune_gpu.common.process import guard
from tune_gpu.common.process.managed import start_ticks


def test_a_comparison_is_stopped_resumed_and_reported(tmp_path: Path) -> None:
    folder = made_run(tmp_path, overrides=[*QUICK, "search.seed=3"])
    command = [sys.executable, "-m", "tune_gpu.cli.main", "compare", RUN_ID, "--rounds", "3", f"run.artifacts_dir={tmp_path}"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(first, "[")  # the first deployment is measured
    tree = guard.descendants(first.pid)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 130, output
    assert "the same command resumes" in output
    assert [pid for pid in tree if start_ticks(pid) is not None] == []
    assert not (folder.path / "comparison.json").exists()
    kept = (folder.path / "comparison.jsonl").read_text()
    assert kept.count('"arm"') >= 1

    second = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=200)
    assert second.returncode == 0, second.stderr
    assert "resuming with" in second.stderr
    assert (folder.path / "comparison.jsonl").read_text().startswith(kept), "nothing measured is lost or measured again"
    comparison = json.loads(second.stdout)
    assert comparison == json.loads((folder.path / "comparison.json").read_text())
    blocks = [json.loads(line) for line in (folder.path / "comparison.jsonl").read_text().splitlines()[1:]]
    order = [block["arm"] for block in blocks]
    assert sorted(order) == 3 * ["baseline"] + 3 * ["winner"]
    assert order[:4] == order[3::-1], "A B B A: both carry the same drift"
    assert comparison["arms"]["winner"]["params"] == FAST
    assert comparison["arms"]["baseline"]["params"] == SLOW
    for number in (0, 1, 2):
        one, other = [[turn["words"] for turn in block["turns"]] for block in blocks if block["round"] == number]
        assert one == other, "the same clips in the same order of arrival"
    assert comparison["n_rounds"] == 3
    assert {"voice_turn_ms.p95", "wer", "fitness"} <= {finding["metric"] for finding in comparison["findings"] if finding["effect"]}
    assert comparison["sentence"].startswith("winner ")
    winner = json.loads((tmp_path / "winners" / f"{EXPERIMENT}.json").read_text())
    assert winner["confirmed"] is comparison["confirmed"]
    assert winner["confirmed_why"] == comparison["confirmed_why"]
    assert winner["confirmation"]["n_turns"] == comparison["arms"]["winner"]["n_turns"]
