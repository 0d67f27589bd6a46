"""Start-up and speed of the command line: python benchmarks/command_line.py

Runs ``cprs compress --stats`` on 100 KB of the language reference in fresh processes, and times ``import cprs_core``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

QUERY = "What happens to an exception when the finally clause executes a return statement?"


def seconds_of(command: list[str]) -> tuple[float, str]:
    """Wall seconds of one run, and what it wrote to standard error."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stderr.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kilobytes", type=int, default=100)
    args = parser.parse_args()
    text = "\n\n".join(topics.values()).encode()[: args.kilobytes * 1_000].decode("utf-8", "ignore")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {len(text.encode()) / 1_000:.0f} KB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.txt"
        path.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "cprs_core.cli", "compress", "--stats", "-q", QUERY, "-n", "500", str(path)]
        runs = [seconds_of(command) for _ in range(args.runs)]
    for seconds, stats in runs:
        print(f"cprs compress: {seconds:.2f} s in all; {stats.splitlines()[-1]}")
    print(f"cprs compress: median {statistics.median(seconds for seconds, _ in runs):.2f} s")
    bare = min(seconds_of([sys.executable, "-c", "pass"])[0] for _ in range(5))
    loaded = min(seconds_of([sys.executable, "-c", "import cprs_core"])[0] for _ in range(5))
    print(f"import cprs_core: {loaded - bare:.3f} s")


if __name__ == "__main__":
    main()
