"""``python -m cprs_core.evaluation SUITE ...``: the same as ``cprs bench SUITE ...``."""

from __future__ import annotations

import argparse
import logging
import sys

from cprs_core.evaluation.cli import add_bench_parser


def main() -> int:
    """Runs one suite and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m cprs_core.evaluation")
    add_bench_parser(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["bench", *sys.argv[1:]])
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
