"""Which machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def machine() -> str:
    """Return the model of the processor, or its architecture where the system does not say, and the number of cores."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"
