"""What is assumed of a load that no meter reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import Network

FUSE_CURRENT_A = 25.0
"""Where nothing is known of a load, 0 with the power of this current is assumed: a usual main fuse of a household."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is assumed of an injection that no meter reads: mean and sigma of P [W] and Q [var], (n_injection,) each."""

    active_power_w: FloatArray
    sigma_active_power_w: FloatArray
    reactive_power_var: FloatArray
    sigma_reactive_power_var: FloatArray


def default_forecast(network: Network) -> Forecast:
    """Return the loads' default powers, each with a sigma of its own size, at least a main fuse's power."""
    fuse = FUSE_CURRENT_A * network.load_v
    sigma = np.maximum(np.maximum(np.abs(network.power_w), np.abs(network.power_var)), fuse)
    return Forecast(network.power_w, sigma, network.power_var, sigma)
