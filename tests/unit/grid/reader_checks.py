"""What the tests of readers share."""

from __future__ import annotations

import numpy as np

from flexmeter.grid import Grid, findings
from flexmeter.powerflow import compile_network, powerflow


def voltages(grid: Grid) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Return our |V| per (bus, phase) and the nominal phase voltage per bus [V]; the grid must be sound."""
    assert findings(grid) == []
    result = powerflow(compile_network(grid), tolerance_va=1e-6)
    result.raise_if_diverged()
    network = result.model.network
    magnitude = np.abs(result.voltage_v[:, 0]).tolist()
    return (
        dict(zip(network.nodes, magnitude, strict=True)),
        dict(zip(network.bus_ids, network.nominal_v.tolist(), strict=True)),
    )


def largest_difference_pu(grid: Grid, theirs: dict[tuple[str, str], float]) -> float:
    """Return the largest difference of |V| to another program's [pu]; every one of its voltages must be ours too."""
    ours, nominal = voltages(grid)
    assert theirs
    return max(abs(ours[node] - value) / nominal[node[0]] for node, value in theirs.items())
