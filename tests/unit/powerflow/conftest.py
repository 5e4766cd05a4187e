"""Grids of the estimation tests, for load flow too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "estimation"))
