"""What a load flow says of one state: losses, extremes, and the place where a limit is broken worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexmeter.reconfiguration.flow import StateFlow
from flexmeter.reconfiguration.goals import Constraints
from flexmeter.reconfiguration.network import FeederNetwork, FloatArray


@dataclass(frozen=True)
class Figures:
    """One state under one load.

    Attributes
    ----------
    losses_w : series losses, all phases [W]
    v_min_pu, v_max_pu : voltages
    loading : largest current over rating, 0 without ratings
    violation : volts [pu] outside the band plus relative overloads, 0 = within limits
    worst : where a limit is broken worst, e.g. "bus MV_006 phase b: 0.8912 pu", or nothing
    """

    losses_w: float
    v_min_pu: float
    v_max_pu: float
    loading: float
    violation: float
    worst: str = ""


def figures_of(
    losses_w: float,
    voltage_pu: FloatArray,
    loading: FloatArray,
    limits: Constraints,
    bus_names: tuple[str, ...],
    branch_names: tuple[str, ...],
) -> Figures:
    """Sum up (n,) voltage magnitudes and (m,) currents over ratings, nan where there is none."""
    fed = np.flatnonzero(~np.isnan(voltage_pu))
    v = voltage_pu[fed]
    outside = np.maximum(limits.v_min_pu - v, v - limits.v_max_pu)
    share = np.nan_to_num(loading)
    over = share - 1.0 if limits.ratings else np.full_like(share, -1.0)
    worst = ""
    if outside.max(initial=0.0) > max(over.max(initial=0.0), 0.0):
        k = int(outside.argmax())
        worst = f"bus {bus_names[fed[k]]}: {v[k]:.4f} pu"
    elif over.max(initial=0.0) > 0:
        k = int(over.argmax())
        worst = f"branch {branch_names[k]}: {share[k]:.1%} of its rating"
    violation = np.maximum(outside, 0.0).sum() + np.maximum(over, 0.0).sum()
    return Figures(
        float(losses_w), float(v.min()), float(v.max()), float(share.max(initial=0.0)), float(violation), worst
    )


def balanced_figures(network: FeederNetwork, flow: StateFlow, limits: Constraints) -> Figures:
    """Return the figures of a balanced load flow."""
    loading = np.abs(flow.current_a) / network.rated_current_a
    voltage = np.abs(flow.voltage_pu)
    return figures_of(flow.losses_w, voltage, loading, limits, network.bus_ids, network.branch_ids)
