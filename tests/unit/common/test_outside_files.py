"""Files that may come from somebody else, as nobody would write them: each reader answers or refuses in one line, within bounds."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_gpu.artifacts.reading import read_folder
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common import outside_files
from tune_gpu.common.errors import UserError
from tune_gpu.compare.store import ReplicateStore
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.refusals import Refusals
from tune_gpu.promote.bundle import read_manifest
from tune_gpu.services.exposition import samples
from tune_gpu.services.vllm.flag_check import _accepted
from tune_gpu.services.vllm.info import read_engine_info
from tune_gpu.services.vllm.memory import checkpoint
from tune_gpu.services.vllm.memory.architecture import read_architecture
from tune_gpu.services.vllm.memory.calibration import CalibrationStore
from tune_gpu.services.vllm.memory.checkpoint import checkpoint_bytes, gguf_bytes
from tune_gpu.services.vllm.server import parse_cores

RUN = ("manifest.json", "summary.json", "plan.json", "comparison.json", "confirmation.json", "config.yaml", "gen_0_candidates.jsonl")


def read_run(folder: Path) -> Any:
    for name, content in (("config.yaml", "parameters: {}\n"), ("gen_0_candidates.jsonl", "")):
        if not os.path.lexists(folder / name):
            (folder / name).write_text(content)
    return read_folder(RunFolder(folder.parent.parent, folder.parent.name, folder.name))


def read_plan(folder: Path) -> Any:
    return Refusals.read(RunFolder(folder.parent.parent, folder.parent.name, folder.name))


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("config.json", read_architecture),
    ("model.safetensors.index.json", checkpoint_bytes),
    ("model.safetensors", checkpoint_bytes),
    ("model.gguf", checkpoint_bytes),
    ("space.yaml", lambda folder: load_config(str(folder / "space.yaml"), [], "cpu")),
    ("plan.json", read_plan),
    ("calibration.json", lambda folder: CalibrationStore(folder / "calibration.json")),
    ("manifest.json", read_manifest),
    ("replicates.jsonl", lambda folder: ReplicateStore(folder / "replicates.jsonl", {}).replicates()),
    ("proposals.jsonl", lambda folder: RunFolder(folder.parent.parent, folder.parent.name, folder.name).proposals()),
    ("accepted_flags.json", lambda folder: _accepted(folder / "accepted_flags.json")),
    *[(name, read_run) for name in RUN],
]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def endless_header(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**38))
        file.truncate(2**40)


SPOILT: dict[str, Callable[[Path], Any]] = {
    "pipe": fifo, "folder": Path.mkdir, "loop": lambda path: path.symlink_to(path.name), "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": sparse, "endless header": endless_header, "empty": lambda path: path.write_bytes(b""),
    "no UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}\n'), "deep": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 900 + b"1" + b"}" * 900 + b"\n"),
    "no number": lambda path: path.write_bytes(b'{"a": NaN, "b": -Infinity, "c": 1e999}\n'), "twice": lambda path: path.write_bytes(b'{"a": 1, "a": []}\n'),
    "long number": lambda path: path.write_bytes(b'{"a": ' + b"9" * 100_000 + b"}\n"), "long text": lambda path: path.write_bytes(b'"' + b"a" * 2**21 + b'"\n'),
    "a list": lambda path: path.write_bytes(b"[1, 2]\n"), "null": lambda path: path.write_bytes(b"null\n"),
}  # fmt: skip


def bytes_read() -> int:
    """By this process until now."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(("name", "read"), READERS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(READERS)])
def test_a_spoilt_file_is_read_or_refused_in_one_line(name: str, read: Callable[[Path], Any], how: str, tmp_path: Path) -> None:
    folder = tmp_path / "experiment" / "run"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    SPOILT[how](folder / name)
    before, message = bytes_read(), None
    try:
        read(folder)
    except UserError as error:
        message = str(error)
    assert bytes_read() - before < 8 * 2**20
    if message is not None:
        assert "\n" not in message
        assert len(message) < 1000
        assert str(folder) in message or name == "space.yaml"  # an error in a space names its key instead of the file


@pytest.mark.parametrize("how", ["pipe", "folder", "loop", "device", "sparse"])
@pytest.mark.parametrize(("name", "read"), [each for each in READERS if each[0] not in ("proposals.jsonl", "model.gguf", "accepted_flags.json")])
def test_what_is_no_regular_file_of_its_size_is_refused(name: str, read: Callable[[Path], Any], how: str, tmp_path: Path) -> None:
    test_a_spoilt_file_is_read_or_refused_in_one_line(name, read, how, tmp_path)
    with pytest.raises(UserError, match=r"\. [A-Z].*\.$"):  # the problem, and what to do
        read(tmp_path / "experiment" / "run")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize("body", [
    struct.pack("<IQQ", 3, 2**60, 0),  # tensors without end
    struct.pack("<IQQ", 3, 0, 2**60),  # facts without end
    struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, 2**60),  # strings without end
    struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 4, 2**62),  # an array that is longer than any file
    struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63),  # a name that is
    struct.pack("<IQQ", 3, 1, 0) + text(b"a") + struct.pack("<I", 2**31),  # dimensions without end
    struct.pack("<IQQ", 3, 1, 0) + text(b"a") + struct.pack("<I", 4) + struct.pack("<QQQQIQ", 2**60, 2**60, 2**60, 2**60, 0, 0),
])  # fmt: skip
def test_a_gguf_header_without_end_is_refused(body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_MOST_GGUF_VALUES", 100_000)  # a thirtieth, in a thirtieth of the time
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + body)
        file.truncate(2**40)
    before = bytes_read()
    with pytest.raises(UserError, match=r"model\.gguf: not a model's GGUF file .*Download the file again\."):
        gguf_bytes(path)
    assert bytes_read() - before < 8 * 2**20


def test_arrays_in_arrays_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 10_000)
    assert gguf_bytes(path) is None


def test_a_safetensors_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert checkpoint_bytes(tmp_path) == 8
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="not a whole file"):
        checkpoint_bytes(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="not a safetensors file"):
        checkpoint_bytes(tmp_path)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("content", [
    LAUGHS, "a: &a [*a]\n", "a: &a {b: *a}\n", "a: *b\n", "a: " + "[" * 10_000, "a: " + "{b: " * 200 + "}" * 200, "- " * 200 + "x", "a: 0x" + "f" * 5000,
    "a: 1" + ":59" * 5000, "a: " + "9" * 5000, "a: 1\n" * 60_000, "&a a: 1\n? *b\n", "%YAML 9.9\n---\na: 1", "a: \x00",
])  # fmt: skip
@pytest.mark.parametrize("limit", [outside_files.SPACE, outside_files.RUN_CONFIG])
def test_yaml_that_grows_or_is_deep_is_refused(content: str, limit: outside_files.Limit, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        outside_files.read_yaml(path, limit)
    assert limit.malformed in str(refused.value) or "cannot be read" in str(refused.value)
    with pytest.raises(UserError):
        load_config(str(path), [], "cpu")


def test_aliases_that_stay_small_are_read(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("a: &shares [0.1, 0.2]\nb: *shares\nc: &c {d: 1}\ne: {<<: *c, f: 2}\n")
    assert outside_files.read_yaml(path, outside_files.SPACE) == {"a": [0.1, 0.2], "b": [0.1, 0.2], "c": {"d": 1}, "e": {"d": 1, "f": 2}}


def test_a_link_to_a_regular_file_is_followed_as_the_hubs_cache_needs(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "config.json").symlink_to("blob")
    assert outside_files.read_json(tmp_path / "config.json", outside_files.MODEL) == {"a": 1}


@pytest.mark.parametrize("cores", ["0-999999999999", "0-8192", "5-2", "", "1,,2", "a", "-1", "0-", "1-2-3", "9" * 5000, "\u0663", "0.5"])
def test_cores_that_no_machine_has_are_refused_at_once(cores: str) -> None:
    if cores == "":
        assert parse_cores(cores) is None
        return
    with pytest.raises(ValueError, match="Use cores below 8192"):
        parse_cores(cores)


def test_cores_are_read_as_taskset_reads_them() -> None:
    assert parse_cores("0,2-3, 7") == [0, 2, 3, 7]


LABELS = ",".join(f'l{number}="{chr(92) * 2}{chr(92)}""' for number in range(20_000))


@pytest.mark.parametrize("page", [
    "vllm:cache_config_info{" + LABELS + "} 1\n", "vllm:cache_config_info{" + LABELS, "vllm:cache_config_info{\n" * 20_000, 'vllm:cache_config_info{a="' + "\\" * 10**6,
    "vllm:cache_config_info{" + '"' * 10**6, "vllm:cache_config_info" * 10**5, "vllm:cache_config_info " + " " * 10**6,
])  # fmt: skip
def test_metrics_are_searched_in_steps_linear_in_the_page(page: str) -> None:
    class Counted(str):
        __slots__ = ()
        looked = 0

        def find(self, *given: Any) -> int:
            Counted.looked += 1
            return super().find(*given)

        def __getitem__(self, part: Any) -> str:
            found = super().__getitem__(part)
            Counted.looked += len(found)
            return found

    list(samples(Counted(page), "vllm:cache_config_info"))
    assert Counted.looked <= 4 * len(page) + 10
    assert read_engine_info(page, "", start_s=1.0, max_model_len=None).kv_cache_tokens is None


def test_labels_with_braces_and_escapes_are_read() -> None:
    page = '# HELP vllm:x y\nvllm:xy{a="1"} 3\nvllm:x{a="b}\\"\\n\\\\",c="d"} 1.5\n vllm:x 9\nvllm:x 2 123\nvllm:x{a= 4\n'
    assert list(samples(page, "vllm:x")) == [({"a": 'b}"\n\\', "c": "d"}, 1.5), ({}, 2.0)]
