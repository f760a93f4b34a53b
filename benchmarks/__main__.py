"""All benchmarks: ``python -m benchmarks [NAME ...] [--quick]``, or ``make bench``.

Tables go to standard error; JSON goes to ``benchmarks/results/NAME.json``. Studies take hours and options of
their own, and run only when they are named first: ``python -m benchmarks quality --help``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

NAMES = (
    "extraction",
    "engines",
    "training",
    "reuse",
    "inference",
    "overhead",
    "sharing",
    "scale",
    "workers",
    "coreset",
    "nearest",
    "audit",
    "serving",
    "growth",
)
STUDIES = ("quality", "peers")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run each in a process of its own, so that none inherits another's memory or threads."""
    if sys.argv[1:2] and sys.argv[1] in STUDIES:
        command = [sys.executable, "-m", f"benchmarks.{sys.argv[1]}", *sys.argv[2:]]
        os.execv(sys.executable, command)  # signals go to the study itself
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few images")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    RESULTS.mkdir(exist_ok=True)
    for name in given.names or NAMES:
        print(f"\n{name}", file=sys.stderr)
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if given.quick else [])]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        (RESULTS / f"{name}.json").write_text(
            json.dumps(json.loads(answer), indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
