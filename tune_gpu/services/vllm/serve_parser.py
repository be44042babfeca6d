"""Run vLLM's own argument parsers, in a process that may import vLLM.

Run as `python -m tune_gpu.services.vllm.serve_parser OUT.json < IN.json`: a list of command lines in, a list of reasons out, null for one
that is accepted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


class _Refused(Exception):
    """The message with which a parser would end the process."""


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def module_parser() -> Any:
    """Return the parser of the API server's module, which starts a candidate's server."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = _cli_args().make_arg_parser(FlexibleArgumentParser())
    parser.error = _refuse
    return parser


def serve_parser() -> Any:
    """Return the parser of the command `vllm`, with its subcommand `serve`."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    served = ServeSubcommand().subparser_init(parser.add_subparsers(required=False, dest="subparser"))
    parser.error = served.error = _refuse
    return parser


def _cli_args() -> Any:
    try:
        from vllm.entrypoints.launchers import cli_args
    except ImportError:  # before vLLM 0.3x
        from vllm.entrypoints.openai import cli_args
    return cli_args


def parse(parser: Any, argv: Sequence[str]) -> argparse.Namespace | str:
    """Return the parsed command line, or why vLLM refuses it before it reads a model."""
    try:
        found: argparse.Namespace = parser.parse_args(list(argv))
        _cli_args().validate_parsed_serve_args(found)
    except SystemExit:
        return "it ends the server at once"
    except Exception as error:  # vLLM's own checks raise many kinds of errors
        return " ".join(str(error).split()) or type(error).__name__
    if list(argv[:1]) != ["serve"] and getattr(found, "model_tag", None) is not None:
        return f"{found.model_tag!r} belongs to no flag"  # the module ignores it, `vllm serve` takes it for the model
    return found


def main(out: str) -> None:
    """Parse every command line on standard input."""
    parser = module_parser()
    results = [parse(parser, argv) for argv in json.load(sys.stdin)]
    Path(out).write_text(json.dumps([reason if isinstance(reason, str) else None for reason in results]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
