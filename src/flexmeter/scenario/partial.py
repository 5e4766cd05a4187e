"""Partial deployment (paper, end of section 6.3): three LV grids without meters, pseudo-measurements in their place."""

from __future__ import annotations

import numpy as np

from flexmeter.estimation import Reports
from flexmeter.scenario.record import Floats, Unmonitored
from flexmeter.scenario.truth import PseudoMeasurement, Truth, pseudo_measurement
from flexmeter.services.mv import MvArea

UNMONITORED = ("LV_004", "LV_009", "LV_011")
SHOWN_AREA, SHOWN_BUS = "LV_011", "MV_011"


class Partial:
    """Replaces the reports of the unmonitored areas by pseudo-measurements."""

    def __init__(self, truth: Truth, mv: MvArea) -> None:
        self._mv = mv
        self._truth = truth
        self.pseudo: dict[str, PseudoMeasurement] = {area: pseudo_measurement(truth, area) for area in UNMONITORED}

    def reports(self, summaries: Reports, minutes: range) -> Reports:
        """Return the reports of minutes (from 0) with P and Q of the unmonitored areas forecast, |V| unknown."""
        value, covariance = summaries.value.copy(), summaries.covariance.copy()
        part = slice(minutes.start, minutes.stop)
        for k, area in enumerate(self._mv.lv_areas):
            if area not in self.pseudo:
                continue
            pseudo = self.pseudo[area]
            value[k, :3] = np.nan
            value[k, 3:6], value[k, 6:] = pseudo.active_power_w[:, part], pseudo.reactive_power_var[:, part]
            covariance[k] = 0.0
            covariance[k, :3] = covariance[k, :, :3] = np.nan
            for phase in range(3):
                covariance[k, 3 + phase, 3 + phase] = pseudo.sigma_active_power_w[phase, part] ** 2
                covariance[k, 6 + phase, 6 + phase] = pseudo.sigma_reactive_power_var[phase, part] ** 2
        return Reports(value, covariance)

    def figure(self, buses: tuple[str, ...], power_w: Floats, sigma_w: Floats) -> Unmonitored:
        """Return the data of Fig. 12 from estimated powers (n_bus, 3, m) [W] over the run."""
        row, count = buses.index(SHOWN_BUS), power_w.shape[-1]
        actual = self._truth.state(range(count)).branch_power_va(SHOWN_AREA).real.sum(axis=0)
        return Unmonitored(
            bus=SHOWN_BUS,
            true=actual / 1e3,
            pseudo=self.pseudo[SHOWN_AREA].active_power_w[:, :count].sum(axis=0) / 1e3,
            estimate=power_w[row].sum(axis=0) / 1e3,
            sigma=np.sqrt((sigma_w[row] ** 2).sum(axis=0)) / 1e3,
        )
