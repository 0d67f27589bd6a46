"""The same as ``cprs bench speed``; arguments are passed on."""

from __future__ import annotations

import sys

from cprs_core.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "speed", *sys.argv[1:]]))
