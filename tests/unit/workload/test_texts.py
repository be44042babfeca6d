"""The texts of turns: built in, or the lines of a file, which comes from outside."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_gpu.common.errors import UserError
from tune_gpu.config.schema import TextSettings
from tune_gpu.workload.texts import LONGEST_LINE, Text, load_texts


def test_the_built_in_texts_are_requests_of_5_to_60_words() -> None:
    texts = load_texts(TextSettings())
    lengths = [len(text.reference.split()) for text in texts]
    assert len(texts) >= 24
    assert 5 <= min(lengths) < 10
    assert 40 < max(lengths) <= 60
    assert len({text.reference for text in texts}) == len({text.name for text in texts}) == len(texts)


def from_file(tmp_path: Path, content: bytes) -> list[tuple[str, str]]:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    return [(text.name, text.reference) for text in load_texts(TextSettings(str(path)))]


@pytest.mark.parametrize("content", [
    "one\n\n  two é \n", "one\r\n\r\ntwo é", "\ufeffone\n\ntwo é\n", "one\n \t\ntwo é\n\n\n",
])  # fmt: skip
def test_each_line_that_is_not_blank_is_a_text(content: str, tmp_path: Path) -> None:
    assert from_file(tmp_path, content.encode()) == [("line-1", "one"), ("line-3", "two é")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file has no text\. Write one text a line\."),
        (b"\n \n\t\n", r"the file has no text\."),
        (b"fine\n\xff\xfe\xfd", r"not UTF-8 .* at byte 5\). Save it as UTF-8\."),
        ("fine".encode("utf-16-le"), r"not UTF-8 \(it holds zero bytes"),
        (b"fine\n" + b"x" * (LONGEST_LINE + 1), rf"line 2 has {LONGEST_LINE + 1} characters, more than {LONGEST_LINE}\. Shorten it"),
    ],
)
def test_a_file_that_is_no_list_of_texts_is_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"workload\.texts\.source=.*texts\.txt: {message}") as caught:
        from_file(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "name too long", "no home", "no name"])
def test_what_is_no_file_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "texts"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    source = {"name too long": "x" * 5000, "no home": "~nobody-of-this-name/texts", "no name": "a\0b"}.get(kind, str(path))
    with pytest.raises(UserError, match=r"(?s)^workload\.texts\.source=.*Set samples, or a file with one text a line\.$") as caught:
        load_texts(TextSettings(source))
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_a_file_of_any_bytes_is_texts_or_one_line(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        found = texts_or_problem(file.name)
    assert found
    assert "\n" not in found if isinstance(found, str) else all(text.reference.strip() == text.reference != "" for text in found)


def texts_or_problem(source: str) -> list[Text] | str:
    try:
        return load_texts(TextSettings(source))
    except UserError as error:
        return str(error)
