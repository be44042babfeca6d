"""A start that fails for one reason, whatever the candidate, ends a run; everything else lets it go on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tune_gpu.artifacts.records.evaluation import EvaluationRecord, FailureRecord
from tune_gpu.common.failures import RETRYABLE, Failure, FailureKind, Phase
from tune_gpu.evaluation.measurement import Measurement, Score, Status
from tune_gpu.evaluation.record import record_of
from tune_gpu.ray_tune.same_failure import SameFailure, StopOnSameFailure, reason_of
from tune_gpu.search.evaluations import Candidate
from tune_gpu.services.start_failures import explain_exit

FLAG = "vllm serve: error: unrecognized arguments: --gpu-memory-utilisation 0.5"


def line(number: int, outcome: Failure | Measurement, params: dict[str, Any] | None = None) -> EvaluationRecord:
    candidate = Candidate(f"g0-c{number}", 0, "initial", {"x": number} if params is None else params)
    measurement = outcome if isinstance(outcome, Measurement) else Measurement.failed(outcome, "cpu")
    return record_of(candidate, measurement, started_at="", wall_s=1.0)


def crash(log: str = FLAG, exit_code: int = 2, service: str = "vllm") -> Failure:
    return explain_exit(service, log, exit_code)


def failed(kind: FailureKind, phase: Phase = Phase.START) -> Failure:
    return Failure(kind, "vllm", phase, "told so")


OK = Measurement(Status.OK, "cpu", score=Score(0.5), n_windows=1)
MISSED = Measurement(Status.OK, "cpu", score=Score(None, violations={"max_wer": 1.0}), n_windows=1)


def observed(*outcomes: Failure | Measurement) -> SameFailure:
    found = SameFailure()
    for number, outcome in enumerate(outcomes):
        found.observe(line(number, outcome))
    return found


def test_the_second_candidate_that_fails_alike_decides() -> None:
    found = observed(crash())
    assert found.reason is None
    found.observe(line(0, crash()))
    assert found.reason is None, "the same line again"
    found.observe(line(5, crash(), {"x": 0}))
    assert found.reason is None, "the same configuration, measured again"
    found.observe(line(1, crash()))
    assert found.reason is not None
    assert found.reason.startswith("vllm: ended with exit code 2 while starting: a setting is refused")
    assert found.reason.endswith(f" Its log: {FLAG}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(APIServer pid=12) error: cannot bind 127.0.0.1:20001", "(APIServer pid=9731) error: cannot bind 127.0.0.1:29999"),
        ("ValueError: /tmp/tg-ab_1x/model has no config.json", "ValueError: /tmp/tg-zz9/other/model has no config.json"),
        ("OSError: ~/models/a.bin is no model", "OSError: ./b.bin is no model"),
        ("RuntimeError: tune-gpu-0a1b2c3d4e5f was lost at 0x7f00aa", "RuntimeError: tune-gpu-ffeeddccbbaa was lost at 0x12"),
        ("RuntimeError: 1f0c1a52-aaaa-bbbb-cccc-0123456789ab", "RuntimeError: 9e0c1a52-1111-2222-3333-0123456789ff"),
        ("2026-11-30 10:00:01,123 ERROR ValueError: no GPU worker-3", "2026-12-01 23:59:59 ERROR ValueError: no GPU worker-17"),
        ("\x1b[31mValueError: took 0.5 s\x1b[0m", "ValueError: took 12 s"),
        ("ValueError: max_num_seqs=16 (max_num_batched_tokens 512)", "ValueError: max_num_seqs=32 (max_num_batched_tokens 2048)"),
    ],
)
def test_what_varies_from_start_to_start_is_no_other_reason(one: str, other: str) -> None:
    first, second = (FailureRecord.parse(crash(log).as_dict(), "failure") for log in (one, other))
    assert reason_of(first) == reason_of(second) is not None
    assert observed(crash(one), crash(other)).reason is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (crash("error: unrecognized arguments: --foo"), crash("error: unrecognized arguments: --bar")),
        (crash("ValueError: float16 is not supported"), crash("ValueError: bfloat16 is not supported")),
        (crash(service="vllm"), crash(service="whisper")),
        (crash("", exit_code=1), crash("", exit_code=2)),
        (crash("", exit_code=134), crash("", exit_code=139)),
        (crash(), failed(FailureKind.WRONG_DEVICE)),
        (crash(), Failure(FailureKind.STARTUP_CRASH, "tune_gpu", Phase.START, "whisper.model=x: no such size")),
    ],
)
def test_another_reason_lets_the_run_go_on_for_good(one: Failure, other: Failure) -> None:
    assert observed(one, other, one, one).reason is None
    assert observed(other, one, one).reason is None


@pytest.mark.parametrize("measured", [OK, MISSED, failed(FailureKind.REQUESTS_FAILED, Phase.LOAD), failed(FailureKind.OOM, Phase.LOAD)])
@pytest.mark.parametrize("at", range(3))
def test_a_candidate_that_started_lets_the_run_go_on(measured: Measurement | Failure, at: int) -> None:
    outcomes: list[Measurement | Failure] = [crash(), crash()]
    outcomes.insert(at, measured)
    assert observed(*outcomes).reason is None


SMALLER = [
    failed(FailureKind.STARTUP_OOM), failed(FailureKind.STARTUP_NO_KV_MEMORY), failed(FailureKind.OOM_KILLED), failed(FailureKind.INFEASIBLE),
    crash("", exit_code=137), crash("RuntimeError: CUDA is out of memory"), crash("RuntimeError: insufficient shared memory"),
]  # fmt: skip


@pytest.mark.parametrize("failure", SMALLER)
def test_a_smaller_candidate_may_fit_where_memory_was_short(failure: Failure) -> None:
    assert observed(failure, failure, failure).reason is None


@pytest.mark.parametrize("kind", sorted(RETRYABLE))
def test_what_may_pass_neither_ends_a_run_nor_hides_a_reason(kind: FailureKind) -> None:
    assert observed(*[failed(kind)] * 5).reason is None
    assert observed(failed(kind), crash(), failed(kind), crash()).reason is not None


def test_a_refusal_before_the_launch_is_no_start() -> None:
    refused = Failure(FailureKind.INFEASIBLE, "tune_gpu", Phase.PREFLIGHT, "too large")
    assert observed(refused, refused, refused).reason is None
    assert observed(refused, crash(), crash()).reason is not None


def test_the_order_of_the_results_does_not_matter() -> None:
    rng = random.Random(0)
    kinds: list[Measurement | Failure] = [crash(), failed(FailureKind.STARTUP_TIMEOUT), OK, crash("error: other")]
    for _ in range(50):
        outcomes = [rng.choice(kinds) for _ in range(4)]
        shuffled = rng.sample(outcomes, len(outcomes))
        assert (observed(*outcomes).reason is None) == (observed(*shuffled).reason is None)


def test_the_stopper_hears_last_reports_alone_and_survives_its_journey() -> None:
    import cloudpickle

    stopper = cloudpickle.loads(cloudpickle.dumps(StopOnSameFailure(observed(crash()))))
    report = {"line_json": json.dumps(line(1, crash()).dump())}
    assert stopper("t1", report) is False
    assert stopper.stop_all() is False, "the trial may be tried again"
    assert stopper("t1", report | {"done": True}) is False
    assert stopper.stop_all() is True
