"""Compare the weights that packages brought with their recorded SHA-256 (weights.sha256). Exit 1 if one differs or is missing."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("weights.sha256")


def problems(record: str) -> list[str]:
    """Return one line for each file of the record that differs or is missing; lines of the record are `SHA256  PACKAGE  PATH`."""
    found = []
    for line in record.splitlines():
        expected, package, path = line.split()
        try:
            file = Path(str(importlib.metadata.distribution(package).locate_file(path)))
            with file.open("rb") as content:
                actual = hashlib.file_digest(content, "sha256").hexdigest()
        except (importlib.metadata.PackageNotFoundError, OSError) as error:
            found.append(f"{package}: {path} cannot be read ({error}). Install {package} again.")
            continue
        if actual != expected:
            found.append(f"{package}: {path} is not the file that was tested (SHA-256 {actual}). Install {package} again.")
    return found


if __name__ == "__main__":
    for problem in (said := problems(RECORD.read_text(encoding="utf-8"))):
        print(f"weights: {problem}", file=sys.stderr)
    sys.exit(bool(said))
