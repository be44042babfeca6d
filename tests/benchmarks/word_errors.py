"""Count recognition errors of references and transcripts in any of Whisper's languages.

    python -m tests.benchmarks.word_errors FILE.tsv --json OUT.json

The file is tab-separated with a heading. Its columns `language` (Whisper's code), `reference` and `transcript` are read, others are passed over.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tune_gpu.common.errors import UserError
from tune_gpu.config.languages import check_language, error_unit, rate_name
from tune_gpu.workload.wer import word_errors

COLUMNS = ("language", "reference", "transcript")


@dataclass(frozen=True)
class Counted:
    """One pair of texts, with its errors."""

    language: str
    reference: str
    transcript: str
    errors: int
    units: int
    unit: str
    """`word` or `character`."""


def counted(path: Path) -> list[Counted]:
    """Every row of the file. Raises UserError for what is no such file, with the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            rows, heading = list(table), table.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: it cannot be read ({error}). Give a tab-separated file in UTF-8.") from error
    if missing := [name for name in COLUMNS if name not in heading]:
        raise UserError(f"{path}: no column {', '.join(missing)}. Its heading must name {', '.join(COLUMNS)}.")
    found = []
    for number, row in enumerate(rows, 2):
        language = check_language(f"{path}, line {number}, language", row["language"].strip())
        try:
            errors, units = word_errors(row["reference"], row["transcript"], language)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}. Write what is said.") from error
        found.append(Counted(language, row["reference"], row["transcript"], errors, units, error_unit(language)))
    return found


@click.command(help="Count word errors, or character errors where blanks do not part words, of a TSV with language, reference, transcript.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the counts to this file.")
def main(file: Path, out: Path | None) -> None:
    """Print a table; write the list."""
    try:
        rows = counted(file)
    except UserError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    for row in rows:
        rate = 100.0 * row.errors / row.units
        click.echo(f"{row.language:<4} {rate_name(row.unit)} {rate:5.1f} %  {row.errors} of {row.units} {row.unit}s  {row.reference} | {row.transcript}")
    if out is not None:
        out.write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
