"""Concentrator-level state estimation (paper section 4.1): the customers of one feeder bus.

In: |V|, P, Q of single-phase customers on their service lines. Out: |V|, P and Q of the feeder bus with their joint
covariance. Runs on the concentrator itself, beside the adapter that reads the meters.
"""

from __future__ import annotations

import numpy as np

from flexmeter.estimation import Estimator, Meter
from flexmeter.grid import Grid
from flexmeter.powerflow import compile_network
from flexmeter.services.areas import AreaResult, Floats, forecast, result_of


class Concentrator:
    """The compiled estimator of one concentrator area; `meters` are (load, phase) in the order of the readings."""

    def __init__(self, grid: Grid, area: str, meters: tuple[tuple[str, str], ...]) -> None:
        self.area = area
        network = compile_network(grid, area=area)
        self._head = network.head_bus
        rows = [Meter("voltage", "load", name, phase) for name, phase in meters]
        rows += [Meter("active_power", "load", name, phase) for name, phase in meters]
        rows += [Meter("reactive_power", "load", name, phase) for name, phase in meters]
        self._estimator = Estimator(network, rows, forecast(grid, network))

    def estimate(self, value: Floats, sigma: Floats) -> AreaResult:
        """Return the estimate of some minutes.

        Parameters
        ----------
        value, sigma : (3 n_meter, m) voltages [V], then active [W], then reactive powers [var]; nan = missing
        """
        odd = bool(np.isinf(value).any() or (value[: len(value) // 3] <= 0).any())
        state = self._estimator.estimate(value, sigma, check=odd)  # the full check names what is odd
        head = state.head.reshape(3, 1, 3, -1)
        variance = state.head_covariance[np.arange(9), np.arange(9)]
        sigma = np.sqrt(variance).reshape(head.shape)
        return result_of("concentrator", self.area, (self._head,), value=head, sigma=sigma, state=state)
