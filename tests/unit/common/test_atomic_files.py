"""A file is whole or not there, and nothing that somebody else put beside it leads the writer elsewhere."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import pytest

from tune_gpu.common.atomic_files import append_whole, read_plain, remove_plain, write_whole


def test_a_link_in_the_files_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    treasure = tmp_path / "shadow"
    treasure.write_text("root's\n")
    (tmp_path / "summary.json").symlink_to(treasure)
    write_whole(tmp_path / "summary.json", "{}")
    assert treasure.read_text() == "root's\n"
    assert not (tmp_path / "summary.json").is_symlink()


def test_a_link_waiting_at_the_old_temporary_name_is_not_written_through(tmp_path: Path) -> None:
    treasure = tmp_path / "shadow"
    treasure.write_text("root's\n")
    (tmp_path / f".summary.json.{os.getpid()}").symlink_to(treasure)
    write_whole(tmp_path / "summary.json", "{}")
    assert treasure.read_text() == "root's\n"


def test_a_link_at_the_very_temporary_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who guesses it all the same gets an error, and keeps what he put there."""
    monkeypatch.setattr(secrets, "token_hex", lambda _bytes: "guessed")
    treasure, waiting = tmp_path / "shadow", tmp_path / ".summary.json.guessed"
    waiting.symlink_to(treasure)
    with pytest.raises(FileExistsError, match=r"summary\.json"):
        write_whole(tmp_path / "summary.json", "{}")
    assert waiting.is_symlink()
    assert not treasure.exists()


def test_where_no_link_may_lead_a_linked_folder_is_named_and_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "cron.d"
    elsewhere.mkdir()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "promotions").symlink_to(elsewhere)
    path = tmp_path / "artifacts" / "promotions" / "run" / "gate.json"
    for act in (lambda: write_whole(path, "{}", follow=False), lambda: read_plain(path), lambda: remove_plain(path)):
        with pytest.raises(OSError, match="promotions") as caught:
            act()
        assert caught.value.errno == errno.ELOOP
    assert list(elsewhere.iterdir()) == []
    write_whole(tmp_path / "artifacts" / "own" / "run" / "gate.json", "{}", follow=False)
    assert (tmp_path / "artifacts" / "own" / "run" / "gate.json").read_text() == "{}"


def test_only_a_regular_file_is_read_and_nothing_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=name):
            read_plain(tmp_path / name)
    assert read_plain(tmp_path / "none" / "file") is None
    (tmp_path / "file").write_bytes(b"\0whole")
    assert read_plain(tmp_path / "file") == b"\0whole"


def test_a_mode_is_taken_over_without_set_user_id(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o4750)
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o750


def test_what_a_link_leads_to_lends_neither_mode_nor_owner(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.write_text("")
    open_to_all.chmod(0o777)
    (tmp_path / "like").symlink_to(open_to_all)
    write_whole(tmp_path / "file", "new", like=tmp_path / "like")
    assert (tmp_path / "file").stat().st_mode & 0o022 == 0


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_no_line_is_added_through_a_link(there: bool, tmp_path: Path) -> None:
    treasure = tmp_path / "profile"
    if there:
        treasure.write_text("mine\n")
    (tmp_path / "lines.jsonl").symlink_to(treasure)
    with pytest.raises(OSError, match=r"symbolic link.*lines\.jsonl"):
        append_whole(tmp_path / "lines.jsonl", b"{}\n")
    assert (treasure.read_text() if treasure.exists() else None) == ("mine\n" if there else None)


def test_a_pipe_in_a_files_place_neither_blocks_nor_takes_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lines.jsonl")
    with pytest.raises(OSError, match=r"lines\.jsonl"):
        append_whole(tmp_path / "lines.jsonl", b"{}\n")
    reader = os.open(tmp_path / "lines.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="not a regular file"):
            append_whole(tmp_path / "lines.jsonl", b"{}\n")
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_lines_are_added_whole_and_the_first_makes_the_file(tmp_path: Path) -> None:
    for line in (b"1\n", b"2\n"):
        append_whole(tmp_path / "lines.jsonl", line)
    assert (tmp_path / "lines.jsonl").read_bytes() == b"1\n2\n"
