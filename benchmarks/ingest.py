"""The ingest chain against its goals: MQTT/TLS clients to the database; the load runs on the same machine.

Prints one JSON line per case, each with deferred sync (2m) and safe against a power cut (always).

    python benchmarks/ingest.py [--seconds 20] [--case single]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from flexmeter.app.bench import CASES, Options, run_case


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description="benchmark of the ingest chain")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--case", choices=list(CASES), action="append")
    options = parser.parse_args()
    for name in options.case or CASES:
        for sync in ("2m", "always"):
            with tempfile.TemporaryDirectory(prefix="flexmeter-bench-") as folder:
                print(json.dumps(run_case(name, Path(folder), Options(options.seconds, sync=sync))), flush=True)


if __name__ == "__main__":
    main()
