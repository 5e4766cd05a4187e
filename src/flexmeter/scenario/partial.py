"""Partial deployment (paper, end of section 6.3): three LV grids without meters, pseudo-measurements in their place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flexmeter.estimation import Reports
from flexmeter.scenario.field import Field
from flexmeter.scenario.profiles import MINUTES
from flexmeter.scenario.record import Unmonitored, runs
from flexmeter.scenario.truth import PseudoMeasurement, Truth, pseudo_measurement
from flexmeter.services.mv import MvArea, plant_sigma

UNMONITORED = ("LV_004", "LV_009", "LV_011")
LONGEST_MINUTES = 240
SHOWN_AREA, SHOWN_BUS = "LV_011", "MV_011"


class Partial:
    """Replaces the reports of the unmonitored areas by pseudo-measurements."""

    def __init__(self, truth: Truth, mv: MvArea) -> None:
        self._mv = mv
        day = truth.state(range(MINUTES))
        self.pseudo: dict[str, PseudoMeasurement] = {area: pseudo_measurement(truth, area, day) for area in UNMONITORED}

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


def unmonitored(field: Field, mv: MvArea, vectors: NDArray[np.bool_], summaries: Reports) -> Unmonitored | None:
    """Estimate a run again with three areas unmonitored; return the data of Fig. 12, None for a grid without them.

    Parameters
    ----------
    vectors : (m, n_switch) switch vectors in force
    summaries : of all LV areas over the run, in the order of `mv.lv_areas`
    """
    if not set(UNMONITORED) <= set(mv.lv_areas):
        return None
    less, row = Partial(field.truth, mv), mv.buses.index(SHOWN_BUS)
    true, estimate, variance = [], [], []
    for minutes, vector in runs(vectors, LONGEST_MINUTES):
        part = slice(minutes.start, minutes.stop)
        here = less.reports(Reports(summaries.value[..., part], summaries.covariance[..., part]), minutes)
        state = field.truth.state(minutes, vector)
        value = field.plant_readings(field.truth.readings(field.fleet, state), mv)
        result = mv.estimate(vector, here, value, plant_sigma(value))
        true.append(state.branch_power_va(SHOWN_AREA).real.sum(axis=0))
        estimate.append(result.value[1, row].sum(axis=0))
        variance.append((result.sigma[1, row] ** 2).sum(axis=0))
    return Unmonitored(
        bus=SHOWN_BUS,
        true=np.concatenate(true) / 1e3,
        pseudo=less.pseudo[SHOWN_AREA].active_power_w[:, : len(vectors)].sum(axis=0) / 1e3,
        estimate=np.concatenate(estimate) / 1e3,
        sigma=np.sqrt(np.concatenate(variance)) / 1e3,
    )
