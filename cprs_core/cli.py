"""The command ``cprs``: its subcommands, and how they end.

Nothing heavy is imported before the arguments are understood, so that help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

from cprs_core import __version__
from cprs_core.cli_compress import LoadCompressor, add_compress_parser, add_demo_parser
from cprs_core.cli_info import add_info_parser
from cprs_core.errors import CPRSError

OK, USAGE_ERROR, INTERRUPTED, PIPE_CLOSED = 0, 2, 130, 141

# Subcommands with parsers of their own; a module is imported only when its command is asked for.
_GUESTS = {
    "advise": ("cprs_core.cli_advise", "does compressing pay, in money and in time?"),
    "bench": ("cprs_core.evaluation.cli", "measure critics beside BM25 and embeddings at equal tokens"),
    "train": ("cprs_core.training.cli", "train a critic from evidence records"),
}


def main(argv: Sequence[str] | None = None, *, load_compressor: LoadCompressor | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: arguments without the program's name; those of the process by default.
        load_compressor: makes the compressor from ``(critic, device=, dtype=, recall_risk=)``;
            `Compressor.from_pretrained` by default.

    Returns:
        0 when it worked, 2 when something in the call has to be put right, 3 when nothing was kept, 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed by whoever called: nobody wants to hear
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lasts
    if sys.stdout is None:
        return _fail(f"standard output is closed; send it to a file or to {os.devnull}")
    try:
        args = _parser(argv).parse_args(argv)
        args.load_compressor = load_compressor or _from_pretrained
        code: int | None = args.run(args)
        sys.stdout.flush()
        return code or OK
    except CPRSError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return PIPE_CLOSED
    except OSError as error:
        name = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return _fail(f"{name}{error.strerror or error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def _fail(message: str) -> int:
    line = " ".join(message.split())
    print(f"cprs: {line}".encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)
    return USAGE_ERROR


class _Parser(argparse.ArgumentParser):
    """Answers mistakes with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}; see '{self.prog} --help'\n")


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="cprs", description="Keeps the text that a question needs, verbatim, and drops the rest.")
    parser.add_argument("--version", action="version", version=f"cprs {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_compress_parser(commands)
    add_demo_parser(commands)
    add_info_parser(commands)
    for name, (module, summary) in _GUESTS.items():
        if name in argv[:1]:
            getattr(import_module(module), f"add_{name}_parser")(commands)
        elif find_spec(module.rpartition(".")[0]) is not None:
            commands.add_parser(name, help=summary, add_help=False)
    return parser


def _from_pretrained(critic: str | None, *, device: str, dtype: str, recall_risk: float | None = None):  # type: ignore[no-untyped-def]
    from cprs_core.compressor import Compressor

    return Compressor.from_pretrained(critic, device=device, dtype=dtype, recall_risk=recall_risk)


if __name__ == "__main__":
    sys.exit(main())
