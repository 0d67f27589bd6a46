"""``python -m cprs_core.evaluation SUITE ...``: the same as ``cprs bench SUITE ...``."""

from __future__ import annotations

import argparse
import logging
import sys

from cprs_core.errors import CPRSError
from cprs_core.evaluation.cli import add_bench_parser


def main() -> int:
    """Runs one suite and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m cprs_core.evaluation")
    add_bench_parser(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["bench", *sys.argv[1:]])
    try:
        return int(args.run(args))
    except CPRSError as error:
        sys.stderr.write(f"cprs bench: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
