"""Whose card a winner was measured on: on a cluster the driver's machine need not have one."""

from __future__ import annotations

from tests.support.made_run import DEVICE, FAST, line
from tune_gpu.artifacts.records.comparison import ConfirmationSummary
from tune_gpu.artifacts.records.devices import DeviceRecord
from tune_gpu.artifacts.records.summary import Costs, RunSummary, StandingRecord
from tune_gpu.experiment.summary import winner_of

BEST = StandingRecord(params=FAST, fitness=0.6, fitness_stderr=None, n_evaluations=1, n_windows=1, evaluations=("g0-c0",))
SUMMARY = RunSummary(
    experiment="e", run_id="r", device="cuda", ended="generations", counts={"ok": 1}, n_evaluations=1, best=BEST, baseline=None, ties=(), generations=(),
    costs=Costs(),
)  # fmt: skip
UNCONFIRMED = ConfirmationSummary(confirmed=False, confirmed_why="nothing was compared")
CARD = {"host": "node-7", "kind": "cuda", "name": "a card", "uuid": "GPU-7", "total_mib": 12288.0, "driver": "550", "cores": None}
LINE = line("g0-c0", FAST, 0.6, measured_on=CARD)
LINE.metrics["neighbours"] = {"memory_mib": 700.0}


def test_a_winner_of_a_cluster_names_its_card_and_its_neighbours() -> None:
    found = winner_of(SUMMARY, [LINE], DeviceRecord(kind="cuda", name="4 GPUs of the Ray cluster"), 0.0, UNCONFIRMED)
    assert (found.device.dump(), found.memory_in_use_at_start_mib) == (CARD, 700.0)


def test_a_winner_of_this_machine_names_its_device() -> None:
    found = winner_of(SUMMARY, [LINE], DeviceRecord.parse(DEVICE, "a device"), 500.0, UNCONFIRMED)
    assert (found.device.dump(), found.memory_in_use_at_start_mib) == (DEVICE, 500.0)
