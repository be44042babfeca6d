"""What becomes of a promotion: every end, decided without doing anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tune_gpu.promote.decision import AlreadyWritten, Decision, Outdated, Refused, Reviewed, Soaked, SoakFirst, decide
from tune_gpu.promote.gate import Condition

HOLDS, GAIN, SOAK = Condition("confirmed", True, ""), Condition("gain", False, ""), Condition("soak", False, "")
BEFORE = {"/etc/vllm.yaml": None}
MANIFEST = {"created_at": "then", "before": BEFORE}


def decided(
    *found: Condition, soaked: bool = False, apply: bool = False, manifest: Mapping[str, Any] | None = None, now: Mapping[str, str | None] = BEFORE
) -> Decision:
    return decide(found, soaked=soaked, apply=apply, written=lambda: manifest, installed=lambda: now)


@pytest.mark.parametrize("soaked", [False, True])
@pytest.mark.parametrize("apply", [False, True])
def test_unmet_conditions_refuse_whatever_was_written(soaked: bool, apply: bool) -> None:
    assert decided(HOLDS, GAIN, SOAK, soaked=soaked, apply=apply, manifest=MANIFEST) == Refused(("gain", "soak"))


def test_unmet_conditions_refuse_without_a_look_at_what_was_written() -> None:
    def unread() -> None:
        raise AssertionError("a refused winner's folder need not be read, which may raise")

    assert decide([GAIN], soaked=False, apply=True, written=unread, installed=dict) == Refused(("gain",))


def test_winner_that_was_never_written_is_soaked_first_and_then_written() -> None:
    assert decided(HOLDS) == SoakFirst()
    assert decided(HOLDS, soaked=True) == Soaked()


def test_new_soak_replaces_what_was_written() -> None:
    assert decided(HOLDS, soaked=True, manifest=MANIFEST) == Soaked()


def test_written_promotion_stays_while_the_target_is_unchanged() -> None:
    assert decided(HOLDS, manifest=MANIFEST) == AlreadyWritten(MANIFEST)


def test_written_promotion_is_outdated_once_the_target_has_changed() -> None:
    assert decided(HOLDS, manifest=MANIFEST, now={"/etc/vllm.yaml": "2f0a"}) == Outdated(MANIFEST)


@pytest.mark.parametrize("now", [BEFORE, {"/etc/vllm.yaml": "2f0a"}])
def test_reviewed_promotion_is_installed(now: Mapping[str, str | None]) -> None:
    """What has changed on the target since the review is refused where it is installed, under the lock."""
    assert decided(HOLDS, apply=True, manifest=MANIFEST, now=now) == Reviewed(MANIFEST)
