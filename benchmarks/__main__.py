"""Run one subject's benchmarks, or all of them in turn."""

import runpy
import sys
from pathlib import Path

SUBJECTS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    subjects = sys.argv[1:2] or SUBJECTS
    unknown = [subject for subject in subjects if subject not in SUBJECTS]
    if unknown:
        print(f"bench: no subject {unknown[0]!r}, expected one of {', '.join(SUBJECTS)}", file=sys.stderr)
        return 2
    for subject in subjects:
        sys.argv = [subject, *sys.argv[2:]]
        runpy.run_module(f"benchmarks.{subject}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
