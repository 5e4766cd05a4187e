"""Random networks with what real ones have: parallel lines, buses without load, generation, several substations."""

from __future__ import annotations

import numpy as np

from flexmeter.reconfiguration import FeederNetwork, build_network


def random_network(seed: int) -> FeederNetwork:
    """4 to 14 buses, 1 or 2 substations, up to 4 ties; some lines parallel, without impedance or not switchable."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 15))
    substations = int(rng.integers(1, 3))
    start = [int(rng.integers(0, i)) for i in range(substations, n)]
    end = list(range(substations, n))
    ties = int(rng.integers(0, 5))
    while ties:
        a, b = (int(x) for x in rng.integers(0, n, 2))
        if a != b:
            start.append(a)
            end.append(b)
            ties -= 1
    m = len(start)
    closed = np.arange(m) < n - substations
    r = rng.uniform(0.05, 0.8, m) * (rng.random(m) > 0.1)
    p = rng.uniform(-2e5, 9e5, n) * (rng.random(n) > 0.25)
    return build_network(
        name=f"random{seed}",
        bus_ids=[f"b{i}" for i in range(n)],
        branch_ids=[f"l{i}" for i in range(m)],
        from_bus=[f"b{i}" for i in start],
        to_bus=[f"b{i}" for i in end],
        r_ohm=r,
        x_ohm=r * rng.uniform(0.3, 1.0, m),
        nominal_voltage_v=15e3,
        slack_buses=[f"b{i}" for i in range(substations)],
        p_w=p,
        q_var=p * rng.uniform(0.0, 0.5, n),
        closed=closed,
        switchable=~closed | (rng.random(m) > 0.15),
        rated_current_a=rng.uniform(150, 400, m),
    )
