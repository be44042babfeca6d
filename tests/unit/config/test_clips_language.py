"""The language of the clips: English for the built-in ones, the user's for theirs, also in sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tune_gpu.common.errors import UserError
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.rules import check
from tune_gpu.config.schema import AudioSettings, ExperimentConfig, WorkloadSettings
from tune_gpu.config.session_settings import ProfileSettings

OWN, BUILT_IN = {"p": ProfileSettings(source="calls")}, {"p": ProfileSettings(source="calls"), "q": ProfileSettings()}


def language(**workload: Any) -> str:
    config = ExperimentConfig(workload=WorkloadSettings(**workload))
    check(config.workload, "workload.")
    return spoken_language(config)


def test_sessions_of_a_folder_have_its_language() -> None:
    assert language(kind="sessions", profiles=OWN, audio=AudioSettings(language="de")) == "de"


@pytest.mark.parametrize("workload", [{}, {"kind": "sessions"}, {"kind": "sessions", "profiles": BUILT_IN}])
def test_the_built_in_clips_are_english(workload: dict[str, Any]) -> None:
    assert language(**workload) == "en"
    with pytest.raises(UserError, match=r"^workload\.audio\.language=de: the clips of workload\.audio\.source=samples are English"):
        language(**workload, audio=AudioSettings(language="de"))
