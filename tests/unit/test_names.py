"""No kind of service is named outside its folder: what is true of one kind alone is asked of the kind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile("whisper|vllm", re.IGNORECASE)
EXCEPTIONS: dict[str, tuple[str, frozenset[str]]] = {
    "tune_gpu/common/default_pair.py": (
        "the one place that declares the default pair",
        frozenset({"vllm", "vLLM", "vllm.service", "VLLM_API_KEY", "whisper", "faster-whisper", "Whisper", "whisper.service"}),
    ),
    "tune_gpu/config/run_settings.py": ("the keys of the default pair under `promote`", frozenset({"vllm", "whisper"})),
    "tune_gpu/workload/clients/transcription.py": ("the name of a model, which OpenAI's API demands", frozenset({"whisper"})),
    "tune_gpu/workload/wer.py": ("a package of text rules, which needs no engine", frozenset({"whisper_normalizer.english"})),
    "tune_gpu/testing/fake_server.py": ("speaks as vLLM does on its page of metrics", frozenset({'vllm:kv_cache_usage_perc{model_name="'})),
}  # fmt: skip
"""File -> why it names them, and the whole names and texts that it may have."""


def words_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name, import and text of a module with its line. Comments, docstrings and the descriptions below constants are documentation."""
    described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        found: list[str | None] = []
        match node:
            case ast.Constant(value=str(text)) if id(node) not in described:
                found = [text]
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.Attribute(attr=name):
                found = [name]
            case ast.arg(arg=name) | ast.keyword(arg=name):
                found = [name]
            case ast.Import(names=names):
                found = [each.name for each in names]
            case ast.ImportFrom(module=module, names=names):
                found = [module, *(each.name for each in names)]
        yield from ((getattr(node, "lineno", 0), text) for text in found if text)


def named_in(path: Path) -> Iterator[tuple[int, str]]:
    yield from ((line, text) for line, text in words_of(ast.parse(path.read_text(encoding="utf-8"))) if NAMED.search(text))


def modules() -> list[Path]:
    found = [*(ROOT / "tune_gpu").rglob("*.py"), *(ROOT / "trainables").rglob("*.py")]
    return sorted(path for path in found if not path.is_relative_to(ROOT / "tune_gpu/services"))


def test_no_kind_is_named_outside_its_folder() -> None:
    found = {str(path.relative_to(ROOT)): list(named_in(path)) for path in modules()}
    unexplained = [f"{path}:{line} {text!r}" for path, named in found.items() for line, text in named if text not in EXCEPTIONS.get(path, ("", ()))[1]]
    assert unexplained == [], "ask the kind, by a protocol of services/base.py or config/kinds.py"


def test_every_exception_is_still_needed() -> None:
    needed = {path: frozenset(text for _, text in named_in(ROOT / path)) for path in EXCEPTIONS}
    assert {path: allowed - needed[path] for path, (_, allowed) in EXCEPTIONS.items() if allowed - needed[path]} == {}
    assert all(reason for reason, _ in EXCEPTIONS.values())


def test_documentation_may_name_a_kind() -> None:
    module = '"""vLLM."""\nA = 1  # vLLM\n"""vLLM\'s."""\nb = "vllm"\ndef whisper(): "Whisper"\n'
    assert sorted(text for _, text in words_of(ast.parse(module)) if NAMED.search(text)) == ["vllm", "whisper"]
