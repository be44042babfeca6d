"""The fine space: conditions between its knobs, and MPS only with permission."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tune_gpu.cli.plan import plan
from tune_gpu.common.errors import UserError
from tune_gpu.common.failures import ServiceError
from tune_gpu.config.loader import as_yaml, load_config
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import settings_with
from tune_gpu.experiment.new_tournament import new_tournament
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.experiment.space_check import check_space
from tune_gpu.search.space import SearchSpace
from tune_gpu.search.tournament import Result
from tune_gpu.services import mps_policy as sharing
from tune_gpu.services.mps import CONTROL, MpsDaemon

FINE = "spica_gpu_allocation_fine"


def config(kind: str, *overrides: str) -> ExperimentConfig:
    found = load_config(FINE, list(overrides), kind)
    found.device = kind
    return found


@pytest.mark.parametrize(("kind", "size"), [("cuda", 21_600), ("cpu", 1_728)])
def test_every_sample_keeps_the_conditions_and_can_be_deployed(kind: str, size: int) -> None:
    found = config(kind)
    space = SearchSpace.from_specs(found.parameters)
    assert space.size == size
    space.check(found.baseline)
    rng = np.random.default_rng(0)
    for _ in range(200):
        params = space.sample(rng)
        space.check(params)
        assert ("vllm_batched_tokens" in params) == params["vllm_chunked_prefill"]
        assert ("whisper_workers" in params) == (params["whisper_batch_size"] == 1)
        services = settings_with(found, params)
        assert services.vllm.max_num_batched_tokens == params.get("vllm_batched_tokens")


def test_it_is_planned_without_a_card() -> None:
    planned = CliRunner().invoke(plan, [FINE, "--gpu", "RTX 3060", "device=cuda", "services.vllm.model=demo-llm", "--rows", "0"])
    assert planned.exit_code in (0, 1), planned.output
    assert "21600 candidates" in planned.output


def test_candidates_with_mps_are_proposed_only_with_permission() -> None:
    def proposed(*overrides: str) -> set[float]:
        tournament = new_tournament(config("cuda", *overrides, "search.generations=20", "search.algorithm=classic"), Refusals())
        seen = set()
        while (candidate := tournament.ask()) is not None:
            seen.add(candidate.params["vllm_mps_pct"])
            tournament.tell(candidate.candidate_id, Result("ok", 0.5, n_windows=1))
        return seen

    assert proposed() == {100}
    assert proposed("run.mps=true") > {100}


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_no_knob_changes_the_answers_of_the_llm_unmeasured(kind: str) -> None:
    """Nothing measures what an LLM with a coarser KV cache answers, so that the fastest would win however wrong it is."""
    targets = {spec.target for spec in config(kind).parameters.values()}
    assert not targets & {"vllm.kv_cache_dtype", "vllm.quantization", "vllm.dtype", "vllm.model"}


def test_a_run_of_the_space_with_the_knob_still_loads(tmp_path: Path) -> None:
    """Its config.yaml has its own parameters."""
    knob = "{target: vllm.kv_cache_dtype, values: [auto, fp8], kind: categorical}"
    before = config("cuda", f"parameters.vllm_kv_cache_dtype={knob}", "baseline.vllm_kv_cache_dtype=auto")
    (tmp_path / "config.yaml").write_text(as_yaml(before))
    kept = load_config(str(tmp_path / "config.yaml"), [], None)
    assert SearchSpace.from_specs(kept.parameters).size == 43_200
    assert settings_with(kept, kept.baseline | {"vllm_kv_cache_dtype": "fp8"}).vllm.kv_cache_dtype == "fp8"


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["services.vllm.mps_active_thread_pct=50"], "cuda", "run.mps=true"),
        (["services.whisper.mps_active_thread_pct=0", "run.mps=true"], "cuda", "whisper.mps_active_thread_pct=0: out of range. Set a number above 0"),
        (["baseline.vllm_mps_pct=50", "baseline.whisper_mps_pct=50"], "cuda", "baseline: it uses MPS"),
        (["parameters.vllm_mps_pct.values=[50,70,100,150]", "run.mps=true"], "cuda", "vllm.mps_active_thread_pct=150: out of range. Set a number above 0 and at most 100"),
        (["services.vllm.mps_active_thread_pct=50", "run.mps=true"], "cpu", "NVIDIA cards only"),
    ],
)
def test_mps_that_cannot_be_is_refused_by_name(overrides: list[str], kind: str, message: str) -> None:
    def checked() -> None:
        found = config(kind, *overrides)
        check_space(found)
        sharing.check_mps(found, kind)

    with pytest.raises(UserError, match=message):
        checked()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NVIDIA's control program at its seam: writes down what it is asked, comes up as the real one does, and quits on request."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
if [ "$1" = -f ]; then
  echo "daemon $CUDA_VISIBLE_DEVICES $CUDA_MPS_PIPE_DIRECTORY" >> {calls}
  [ "$CUDA_VISIBLE_DEVICES" = broken ] && echo "no such device" && exit 3
  mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"
  read line < "$CUDA_MPS_PIPE_DIRECTORY/control"
  echo "ended by $line" >> {calls}
else
  read line; echo "$line" > "$CUDA_MPS_PIPE_DIRECTORY/control"
fi
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_the_daemon_gets_its_card_and_its_clients_their_share(calls: Path) -> None:
    """At the end it is asked to quit."""
    daemon = MpsDaemon("GPU-8932f937")
    daemon.start()
    assert daemon.pids()
    client = daemon.environment(70)
    folder = Path(client["CUDA_MPS_PIPE_DIRECTORY"])
    assert (client["CUDA_VISIBLE_DEVICES"], client["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"]) == ("GPU-8932f937", "70")
    daemon.stop()
    assert calls.read_text().splitlines() == [f"daemon GPU-8932f937 {folder}", "ended by quit"]
    assert not folder.exists()
    daemon.stop()


def test_a_daemon_that_does_not_come_up_is_a_failure_with_its_last_word(calls: Path) -> None:
    with pytest.raises(ServiceError, match="exit code 3") as caught:
        MpsDaemon("broken").start()
    assert caught.value.failure.evidence == "no such device"


def test_where_it_is_not_installed_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="is not installed"):
        MpsDaemon("0").start()
