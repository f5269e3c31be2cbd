"""``ctrank-train``: parse, call a command, translate errors. Exit codes: 0 done, 2 the user's mistake, 1 anything
else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from models_export.errors import ArtefactError, EncodingError
from training.commands import compare, evaluate, export, factorise, fit, prepare, reproduce, synth, tune
from training.errors import UsageError

COMMANDS = (synth, prepare, fit, evaluate, tune, compare, factorise, export, reproduce)

#: A path that cannot be used is the user's to put right; their messages name it.
PATHS = (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)

EPILOG = """\
From a log to a served model:
  ctrank-train prepare movielens-1m --data ../shared/data --out prepared
  ctrank-train fit prepared --model dplr --rank 2 --out run
  ctrank-train evaluate run
  ctrank-train export run --registry registry --name movielens --activate
  ctrank-serve run --registry registry
"""


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line on stderr and the exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="ctrank-train",
        description="Train factorization-machine CTR models and publish them for ctrank-serve.",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        name = command.__name__.rsplit(".", 1)[-1]
        text = command.__doc__ or ""
        summary, _, details = text.partition("\n")
        sub = commands.add_parser(
            name, help=summary, description=summary, epilog=details.strip().replace("::\n\n", ":\n") or None,
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )  # fmt: skip
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        arguments.run(arguments)
    except (UsageError, ArtefactError, EncodingError, *PATHS) as error:
        print(f"ctrank-train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ctrank-train: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        print(f"ctrank-train: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
