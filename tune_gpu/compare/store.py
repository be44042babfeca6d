"""Store a comparison's replicates on disk, each as it ends, so that a stopped comparison can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_gpu.artifacts.redaction import Redactor
from tune_gpu.common import outside_files
from tune_gpu.common.atomic_files import append_whole, write_whole
from tune_gpu.compare.samples import Replicate


class ReplicateStore:
    """`<name>.jsonl`: a first line with the terms of the comparison, then one line for each replicate.

    Args:
        path: of the file.
        terms: what is compared and how. Replicates that were measured on other terms are moved aside (`….old`), never mixed in.
        redactor: removes secrets that it knows (the terms hold the services' settings).
    """

    def __init__(self, path: Path, terms: Mapping[str, Any], redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self.path, self._terms = path, json.loads(json.dumps(self._redactor.value(terms)))

    def replicates(self) -> list[Replicate]:
        """Return every complete replicate so far. An unfinished last line is cut off."""
        limit = outside_files.SAMPLES
        try:
            content = outside_files.read_bytes(self.path, limit)
        except outside_files.NotThere:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        try:
            head, *rest = [outside_files.parse_json(line, self.path, limit) for line in outside_files.split_lines(whole, self.path, limit)]
            same = head in (self._terms, {name: value for name, value in self._terms.items() if name != "traffic"})  # an older program wrote no traffic
            replicates = [Replicate.from_dict(line) for line in rest] if same else []
        except (ValueError, TypeError, KeyError):
            same, replicates = False, []
        if not same:
            self.path.replace(self.path.with_name(self.path.name + ".old"))
        elif len(whole) != len(content):
            write_whole(self.path, whole)
        return replicates

    def append(self, replicate: Replicate) -> None:
        """Append a replicate; it is on disk when this returns."""
        if not self.path.exists():
            write_whole(self.path, json.dumps(self._terms) + "\n")
        append_whole(self.path, (json.dumps(self._redactor.value(replicate.as_dict())) + "\n").encode())
