"""What the program makes of the logs of services that did not start: `python -m tests.benchmarks.start_logs FOLDER [--json OUT]`.

FOLDER has one `*.log` for each start; a name that begins with `whisper` is Whisper's log, every other is vLLM's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tune_gpu.services.start_failures import advice_for, explain_exit


def explain(folder: Path) -> list[dict[str, str]]:
    """Each log's kind of failure, its evidence and the advice, by the names of the files."""
    found = []
    for path in sorted(folder.glob("*.log")):
        service = "whisper" if path.name.startswith("whisper") else "vllm"
        failure = explain_exit(service, path.read_text(errors="replace"), 1)
        found.append({"file": path.name, "kind": failure.kind.value, "evidence": failure.evidence, "advice": advice_for(failure)})
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print a table and write the JSON; 2 where the folder has no log."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.start_logs", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the logs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the list as JSON")
    asked = parser.parse_args(arguments)
    found = explain(asked.folder)
    if not found:
        print(f"{asked.folder}: no *.log there. Name a folder that has some.")
        return 2
    width = max(len(one["file"]) for one in found)
    for one in found:
        print(f"{one['file']:{width}}  {one['kind']:20}  {one['evidence'][-90:]}\n{'':{width}}  {'':20}  {one['advice']}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
