"""The same as ``cprs bench haystack``; arguments are passed on."""

from __future__ import annotations

import sys

from cprs_core.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "haystack", *sys.argv[1:]]))
