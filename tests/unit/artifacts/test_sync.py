"""The copy of a run's artifacts: any place that Ray's storage takes."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tune_gpu.artifacts.sync import ArtifactSync
from tune_gpu.common.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "artifacts" / "e" / "run").mkdir(parents=True)
    (tmp_path / "artifacts" / "e" / "run" / "gen_0_candidates.jsonl").write_text("{}\n")
    return tmp_path / "artifacts"


@pytest.mark.parametrize("form", ["{}/copy", "file://{}/copy/"])
def test_files_follow_into_a_folder_or_a_uri(root: Path, tmp_path: Path, form: str) -> None:
    sync = ArtifactSync(form.format(tmp_path), root)
    file = root / "e" / "run" / "gen_0_candidates.jsonl"
    sync.push(file, root / "winners" / "e.json")  # the winner is not there yet
    file.write_text("{}\n{}\n")
    sync.push(file)
    assert (tmp_path / "copy" / "e" / "run" / "gen_0_candidates.jsonl").read_text() == "{}\n{}\n"


def test_any_file_system_of_fsspec_will_do(root: Path) -> None:
    ArtifactSync("memory://bucket/runs", root).push(root / "e" / "run" / "gen_0_candidates.jsonl")
    assert fsspec.filesystem("memory").cat("/bucket/runs/e/run/gen_0_candidates.jsonl") == b"{}\n"


@pytest.mark.parametrize("uri", ["nosuch://bucket/x", "/proc/nowhere"])
def test_where_nothing_can_be_written_it_says_so_in_one_line(root: Path, uri: str) -> None:
    with pytest.raises(UserError, match="cannot be written") as caught:
        ArtifactSync(uri, root)
    assert "\n" not in str(caught.value)
