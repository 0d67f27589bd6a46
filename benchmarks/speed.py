"""``speed.py [OPTIONS]`` is ``cprs bench speed``; ``speed.py peers`` races other compressors (`speed_peers`)."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["peers"]:
        from speed_peers import race

        sys.exit(race(sys.argv[2:]))
    from cprs_core.cli import main

    sys.exit(main(["bench", "speed", *sys.argv[1:]]))
