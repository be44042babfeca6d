"""Docstrings and test names as docs/STYLE.md wants them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [*sorted(path.parent for path in (ROOT / "tune_gpu").glob("*/__init__.py")), ROOT / "trainables"]
UNFIT = {
    "A", "Above", "After", "All", "An", "As", "At", "Before", "Below", "Between", "Beside", "By", "Every", "From", "For", "How", "In", "Of", "On", "One", "Over",
    "The", "This", "To", "Under", "What", "When", "Where", "Whether", "Which", "While", "Why", "With", "Within", "Without",
}  # fmt: skip
"""First words of a function's docstring that are no verb."""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_functions_docstring_begins_with_a_verb(package: Path) -> None:
    found = []
    for path in sorted(package.rglob("*.py")):
        for function in functions(path):
            words = (ast.get_docstring(function) or "").split()
            if words and words[0].rstrip(",:") in UNFIT:
                found.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {' '.join(words[:6])}")
    assert found == []


def test_test_names_have_at_most_70_characters() -> None:
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(paths) > 100
    names = {f"{path.relative_to(ROOT)} {function.name}" for path in paths for function in functions(path) if function.name.startswith("test_")}
    assert sorted(name for name in names if len(name.split()[1]) > 70) == []
