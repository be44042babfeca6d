"""Docstrings, comments, messages and test names follow docs/STYLE.md."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [*sorted(path.parent for path in (ROOT / "tune_gpu").glob("*/__init__.py")), ROOT / "trainables"]
UNFIT = {
    "A", "Above", "After", "All", "An", "As", "At", "Before", "Below", "Between", "Beside", "By", "Every", "From", "For", "How", "In", "Of", "On", "One", "Over",
    "The", "This", "To", "Under", "What", "When", "Where", "Whether", "Which", "While", "Why", "With", "Within", "Without",
}  # fmt: skip
"""First words of a function's docstring that are not a verb."""
PHRASES = (
    r"what is none",
    r"of which there is none",
    r"where (it|they) (is|are) not there",
    r"\b(is|are|was|were|who is) told\b",
    r"\b(does|do) not tell\b",
    r"\b(says|say|tells|knows?) neither\b",
    r"\b(go|goes|going|gone|went) on with\b",
    r"\bfor want of\b",
    r"\ballowed (is|are)\b",
    r"(^|[.:;] )so (many|much|long)\b",
    r"\b(by|for) so (many|much|long)\b",
    r"\b(becomes?|came) of (it|them|its|a|the)\b",
    r"\b(take|takes|taken|took) (it )?back\b",
    r"\b(give|gives|given|gave) back\b",
    r"\bput right\b",
    r"\bleft halfway\b",
    r"\b(fall|falls|fell) short\b",
    r"\b(is|are) at work\b",
    r"\bcannot be asked\b",
    r"\bone an? (row|line|step|unit|candidate|parameter|evaluation|deployment)\b",
    r"\bdrawn ones\b",
    r"\ba riddle\b",
    r"\bno such thing\b",
)
"""Phrases that made readers read a sentence twice. None has a use for which there is no usual word."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and strings of a module with their line numbers."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


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


def test_no_phrase_of_the_list_comes_back() -> None:
    unwanted = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)
    paths = sorted({*(ROOT / "tune_gpu").rglob("*.py"), *(ROOT / "trainables").rglob("*.py")})
    assert len(paths) > 100
    found = [f"{path.relative_to(ROOT)}:{line} {match[0]!r}" for path in paths for line, text in texts(path) if (match := unwanted.search(text))]
    assert found == []


@pytest.mark.parametrize("text", ["What is none is refused.", "It is told when one begins.", "So many windows count.", "x=1: allowed is 0"])
def test_the_list_of_phrases_finds_them_in_any_case(text: str) -> None:
    assert any(re.search(phrase, text, re.IGNORECASE) for phrase in PHRASES)


def test_test_names_have_at_most_70_characters() -> None:
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(paths) > 100
    names = {f"{path.relative_to(ROOT)} {function.name}" for path in paths for function in functions(path) if function.name.startswith("test_")}
    assert sorted(name for name in names if len(name.split()[1]) > 70) == []
