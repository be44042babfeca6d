"""Every reader of data that comes from outside, fed with what nobody would write: an answer, or one clear line; never another error.

More than usual: `TUNE_GPU_FUZZ=2000 make test TESTS=tests/unit/artifacts/test_outside_data.py`. Model configs are fed the same way in `tests/unit/services/vllm_memory/test_robustness.py`, pipes, sparse and deep files in `tests/unit/common/test_outside_files.py`; answers of services in `tests/faults/test_garbage.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_gpu.artifacts.reading import read_folder
from tune_gpu.artifacts.records.evaluation import EvaluationRecord
from tune_gpu.artifacts.run_folder import RunFolder
from tune_gpu.common.errors import UserError
from tune_gpu.config.loader import load_config
from tune_gpu.experiment.checks import check_config
from tune_gpu.services.faster_whisper.transcriber import read_audio
from tune_gpu.services.start_failures import explain_exit, explain_loss
from tune_gpu.services.vllm.info import read_engine_info
from tune_gpu.services.vllm.memory.checkpoint import checkpoint_bytes
from tune_gpu.services.vllm.memory.learning import read_start_log
from tune_gpu.workload.audio import read_wav

# The same examples every time, so that a gate is a gate; new ones by command.
often = settings(
    max_examples=int(os.environ.get("TUNE_GPU_FUZZ", "40")),
    derandomize="TUNE_GPU_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """The valid file with a few bytes replaced, cut off or put in: nearer to what a reader expects than noise is."""

    def change(edits: list[tuple[int, bytes, int]]) -> bytes:
        content = valid
        for at, put, drop in edits:
            at %= len(content) + 1
            content = content[:at] + put + content[at + drop :]
        return content

    edit = st.tuples(st.integers(0, 10**6), st.binary(max_size=6), st.sampled_from([0, 1, 4, 10**6]))
    return st.lists(edit, max_size=4).map(change) | st.binary(max_size=200)


def one_line_or_answer(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UserError as error:
        if "\n" in str(error).strip():
            raise AssertionError("more than one line") from error
        return None


def written(content: bytes, name: str) -> Path:
    path = Path(FOLDER.name) / name
    path.write_bytes(content)
    return path


FOLDER = tempfile.TemporaryDirectory(prefix="tune-gpu-fuzz-")

SPACE = b"""name: s
parameters:
  share: {target: vllm.gpu_memory_utilization, values: [0.1, 0.2]}
  size: {target: whisper.model, values: [tiny, base], when: {share: [0.1]}}
baseline: {share: 0.1, size: tiny}
objective: {weights: {wer: 1.0}}
workload: {audio: {source: samples, noise_snr_db: [null, 5]}, windows: 2}
search: {seed: 3}
devices: {cpu: {workload: {windows: 1}}}
"""
KEYS = ["name", "parameters", "baseline", "objective", "workload", "search", "run", "ray", "services", "devices", "device", "description"]


@often
@given(content=mutated(SPACE))
def test_a_spaces_yaml_of_any_bytes(content: bytes) -> None:
    path = written(content, "space.yaml")
    config = one_line_or_answer(lambda: load_config(str(path), [], "cpu"))
    if config is not None:
        one_line_or_answer(lambda: check_config(config))


@often
@given(content=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
def test_a_spaces_yaml_of_any_values(content: dict[str, Any]) -> None:
    path = written(yaml.safe_dump({**yaml.safe_load(SPACE), **content}).encode(), "space.yaml")
    config = one_line_or_answer(lambda: load_config(str(path), [], "cpu"))
    if config is not None:
        one_line_or_answer(lambda: check_config(config))


LINE: dict[str, Any] = {
    "candidate_id": "g0-c0", "generation": 0, "origin": "baseline", "params": {"share": 0.1}, "status": "ok", "failure": None, "fitness": 0.5,
    "fitness_stderr": None, "violations": {}, "metrics": {"wer": 0.1}, "n_windows": 2, "device": "cpu", "started_at": "2026-01-01T00:00:00+00:00",
    "duration_s": {"start": 1.0, "load": 2.0, "stop": 0.1}, "engine_reused": False,
}  # fmt: skip


def run_with(lines: bytes) -> RunFolder:
    folder = RunFolder(FOLDER.name, "experiment", "run-1")
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "config.yaml").write_text("name: experiment\n")
    (folder.path / "gen_0_candidates.jsonl").write_bytes(lines)
    return folder


@often
@given(content=mutated(json.dumps(LINE).encode() + b"\n" + json.dumps(LINE).encode() + b"\n"))
def test_a_runs_lines_of_any_bytes(content: bytes) -> None:
    folder = run_with(content)
    for line in one_line_or_answer(lambda: list(folder.candidates())) or []:
        assert isinstance(line, EvaluationRecord)
    one_line_or_answer(lambda: read_folder(folder))


@often
@given(change=st.dictionaries(st.sampled_from(sorted(LINE)), json_values, max_size=3), drop=st.sets(st.sampled_from(sorted(LINE)), max_size=2))
def test_a_runs_lines_of_any_values(change: dict[str, Any], drop: set[str]) -> None:
    line = {key: value for key, value in {**LINE, **change}.items() if key not in drop}
    folder = run_with(json.dumps(line).encode() + b"\n")
    found = one_line_or_answer(lambda: list(folder.candidates()))
    for whole in found or []:
        whole.result()
    one_line_or_answer(lambda: read_folder(folder))


LOG = (
    b"(EngineCore pid=1) ERROR ValueError: To serve at least one request with the models's max seq len (2048), (0.50 GiB KV cache is needed, "
    b"which is larger than the available KV cache memory (0.25 GiB).\nINFO Auto set (1.39/13.09) GiB for KV cache on node 0\n"
    b"Free memory on device (3.1/23.5 GiB) on startup is less than desired GPU memory utilization (0.5, 11.8 GiB).\n"
    b"INFO 0.58 GiB memory was consumed by non-kv usages\nModel loading took 1.2.3 GiB\n"
)


@often
@given(content=mutated(LOG), exit_code=st.none() | st.integers(0, 255))
def test_a_servers_log(content: bytes, exit_code: int | None) -> None:
    log = content.decode(errors="replace")
    found = explain_exit("vllm", log, exit_code)
    assert found.message
    assert math.isfinite(found.shortfall)
    assert found.shortfall >= 0
    assert len(found.evidence) <= 500
    explain_loss("whisper", log, exit_code or 0)
    read_start_log(log)


METRICS = b"""# HELP vllm:cache_config_info x
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="64",kv_cache_max_concurrency="1.5"} 1.0
"""


@often
@given(metrics=mutated(METRICS), version=mutated(b'{"version": "0.32.0"}'), length=st.none() | st.integers(1, 10**6))
def test_what_an_engine_says_of_itself(metrics: bytes, version: bytes, length: int | None) -> None:
    info = read_engine_info(metrics.decode(errors="replace"), version.decode(errors="replace"), start_s=1.0, max_model_len=length)
    assert info.kv_cache_tokens is None or info.kv_cache_tokens >= 0
    assert info.version is None or isinstance(info.version, str)
    json.dumps(info.as_dict(), allow_nan=False)


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [4, 4], "data_offsets": [0, 32]}, "__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(32)


def _gguf() -> bytes:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    entries = text(b"a") + struct.pack("<II", 4, 7) + text(b"b") + struct.pack("<IIQ", 9, 8, 1) + text(b"c")
    tensor = text(b"w") + struct.pack("<IQQIQ", 2, 32, 4, 2, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + entries + tensor


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("model.safetensors.index.json", b'{"metadata": {"total_size": 1024}, "weight_map": {"w": "../../etc/passwd"}}'),
        ("model.safetensors", _safetensors()),
        ("model.gguf", _gguf()),
    ],
)
def test_a_checkpoints_header(name: str, valid: bytes) -> None:
    folder = Path(FOLDER.name) / "model"

    @often
    @given(content=mutated(valid))
    def any_bytes(content: bytes) -> None:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        size = one_line_or_answer(lambda: checkpoint_bytes(folder))
        assert size is None or (size >= 0 and math.isfinite(size))

    (folder / name).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(valid)
    assert checkpoint_bytes(folder)
    any_bytes()
    (folder / name).unlink()


def _wav() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as clip:
        clip.setnchannels(2)
        clip.setsampwidth(2)
        clip.setframerate(8000)
        clip.writeframes(bytes(range(200)))
    return content.getvalue()


@often
@given(content=mutated(_wav()))
def test_a_wav_file(content: bytes) -> None:
    path = written(content, "clip.wav")
    samples = one_line_or_answer(lambda: read_wav(path))
    assert samples is None or samples.ndim == 1
    with contextlib.suppress(ValueError):  # the service answers 400 with it
        assert read_audio(content).ndim == 1


def test_yaml_that_would_run_something_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "space.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {trace}']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(str(tmp_path / "space.yaml"), [])
    assert not trace.exists()


def test_a_shells_words_in_a_setting_are_a_text_like_any_other(tmp_path: Path) -> None:
    from tune_gpu.common.process.managed import ManagedProcess
    from tune_gpu.services.vllm.settings import VllmSettings
    from tune_gpu.services.vllm.setup import serve_flags

    trace = tmp_path / "trace"
    settings = VllmSettings(quantization=f"$(touch {trace}); touch {trace} #", extra_args={"x": f"`touch {trace}`"})
    process = ManagedProcess(["echo", *serve_flags(settings)], log=tmp_path / "log", env=dict(os.environ))
    while process.exit_code() is None:
        pass
    process.stop()
    assert "$(touch" in (tmp_path / "log").read_text()
    assert not trace.exists()
