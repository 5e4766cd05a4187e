"""Which of several models fits the readings: switch status, a customer's phase.

Every candidate is an `Estimator` of its own network with the same rows of readings. A candidate's fit J leads to its
likelihood exp(-J / 2) (readings, sigmas and number of states are the same for all), likelihoods of successive moments
multiply, and Bayes' rule with prior probabilities gives posterior ones (switches: R. Singh et al.,
doi:10.1109/TPWRS.2010.2040294; phases from voltages of meters: T. A. Short, doi:10.1109/TSG.2012.2219081).

Real meters have errors that stay: a voltmeter that reads 1 % too high says so again in every moment, which is no new
evidence. `fixed_share` is the share of each variance that stays; with it, residuals of one meter at two moments have
that correlation and their joint likelihood is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_changes

import numpy as np
from msgspec.structs import replace
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, GridError, MeasurementError
from flexmeter.estimation.estimate import Estimate
from flexmeter.estimation.estimator import Estimator
from flexmeter.estimation.measurements import Meter
from flexmeter.grid.model import Grid
from flexmeter.powerflow.lanes import FloatArray
from flexmeter.powerflow.network import compile_network


@dataclass(frozen=True, eq=False)
class Comparison:
    """How candidates explain the readings, scenarios taken as moments in order.

    Attributes
    ----------
    names : the candidates
    objective : (n_candidate, n_scenario) J; nan where a candidate did not converge
    log_likelihood : (n_candidate, n_scenario) of all readings up to this moment, without the constant all share
    posterior : (n_candidate, n_scenario) probability after this moment
    used : (n_scenario,) whether the moment counts: all candidates converged
    """

    names: tuple[str, ...]
    objective: FloatArray
    log_likelihood: FloatArray
    posterior: FloatArray
    used: np.ndarray

    @property
    def best(self) -> str:
        """The most probable candidate after the last moment."""
        return self.names[int(self.posterior[:, -1].argmax())]

    def decided(self, probability: float = 0.99) -> tuple[str, int] | None:
        """Return the first candidate to reach a probability, and after how many moments; None if none did."""
        reached = self.posterior >= probability
        if not reached.any():
            return None
        moment = int(reached.any(0).argmax())
        return self.names[int(reached[:, moment].argmax())], moment + 1


def compare(
    candidates: Mapping[str, Estimator],
    value: ArrayLike,
    sigma: ArrayLike,
    *,
    prior: Mapping[str, float] | None = None,
    fixed_share: float = 0.0,
    threads: int = 1,
) -> Comparison:
    """Return how well each candidate explains the readings, moment after moment.

    Parameters
    ----------
    candidates : name -> estimator; row k of all of them is the same physical meter, whatever phase it is said to be on
    value, sigma : (n_meter, n_scenario) readings and standard deviations, scenarios in order of time
    prior : name -> probability before any reading; default all equal
    fixed_share : share of each reading's variance that is an error which stays, 0 to below 1. 0.81 for meters whose
        gain error is 0.9 sigma
    threads : as for `Estimator.estimate`

    Raises
    ------
    MeasurementError
        fewer than two candidates, different numbers of meters, prior probabilities that are none.

    Notes
    -----
    With standardised residuals q_t of a meter at n moments and the share c that stays, the exponent is
    -1/2 [sum q^2 / (1 - c) - c (sum q)^2 / ((1 - c) (1 - c + n c))] (inverse of (1 - c) I + c 1 1'). A moment at
    which a candidate did not converge counts for none of them.
    """
    z, s = (np.asarray(item, float) for item in (value, sigma))
    z, s = (item[:, None] if item.ndim == 1 else item for item in (z, s))
    log_prior = _log_prior(candidates, prior, fixed_share)
    estimates = [estimator.estimate(z, s, covariance=False, threads=threads) for estimator in candidates.values()]
    left_out = np.logical_or.reduce([estimate.left_out for estimate in estimates])
    if left_out.any():  # all candidates are judged by the same readings
        z = np.where(left_out, np.nan, z)
        estimates = [estimator.estimate(z, s, covariance=False, threads=threads) for estimator in candidates.values()]
    used = np.logical_and.reduce([estimate.converged for estimate in estimates])
    log_likelihood = np.stack([_log_likelihood(estimate, z, s, used, fixed_share) for estimate in estimates])
    return Comparison(
        names=tuple(candidates),
        objective=np.stack([np.where(e.converged, e.objective, np.nan) for e in estimates]),
        log_likelihood=log_likelihood,
        posterior=_normalised(log_likelihood + log_prior[:, None]),
        used=used,
    )


def _log_prior(candidates: Mapping[str, Estimator], prior: Mapping[str, float] | None, share: float) -> FloatArray:
    given = dict.fromkeys(candidates, 1.0) if prior is None else prior
    numbers = np.array([given.get(name, np.nan) for name in candidates], float)
    checks = (
        (len(candidates) >= 2, "candidates", f"{len(candidates)}, expected at least two"),
        (len({len(item.meters) for item in candidates.values()}) <= 1, "candidates", "different numbers of meters"),
        (bool((numbers > 0).all()) and set(given) == set(candidates), "prior", "expected one above 0 for each"),
        (0 <= share < 1, "fixed_share", f"{share}, expected 0 to below 1"),
    )
    findings = [Finding("comparison", tuple(candidates), field, text) for fine, field, text in checks if not fine]
    if findings:
        raise MeasurementError(findings)
    return np.asarray(np.log(numbers / numbers.sum()))


def _log_likelihood(estimate: Estimate, z: FloatArray, s: FloatArray, used: np.ndarray, share: float) -> FloatArray:
    """Return (n_scenario,) the cumulative exponent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.where(used & ~np.isnan(z) & (s > 0), (z - estimate.fitted) / s, 0.0)
    of_forecasts = np.where(used, estimate.objective, 0.0) - (q**2).sum(0)
    moments = np.cumsum(used & ~np.isnan(z), axis=1)
    squares, sums = np.cumsum(q**2, axis=1), np.cumsum(q, axis=1)
    fresh = 1 - share
    exponent = squares / fresh - share * sums**2 / (fresh * (fresh + moments * share))
    return np.asarray(-0.5 * (exponent.sum(0) + np.cumsum(of_forecasts)))


def _normalised(log_weight: FloatArray) -> FloatArray:
    weight = np.exp(log_weight - log_weight.max(0))
    return np.asarray(weight / weight.sum(0))


def switch_candidates(
    grid: Grid, meters: Sequence[Meter], vectors: Mapping[str, Sequence[bool]], *, area: str | None = None
) -> dict[str, Estimator]:
    """Return an estimator for every switch status vector (name -> closed or not, in the order of the grid's switches).

    Raises
    ------
    NotRadial, GridError
        a vector that leaves buses without supply or closes a loop.
    MeasurementError
        a meter that one of the networks does not have: a branch meter on an open branch.
    """
    return {
        name: Estimator(compile_network(grid, tuple(vector), area=area), meters) for name, vector in vectors.items()
    }


def phase_candidates(
    grid: Grid, meters: Sequence[Meter], load: str, *, area: str | None = None
) -> dict[str, Estimator]:
    """Return an estimator for each phase (a, b, c) that a single-phase load might be on.

    The load moves with its service: the single-phase buses and lines from its bus up to the first bus with the other
    phases, as long as no other load hangs there. Meters at the load follow.

    Raises
    ------
    GridError
        no such load, one of several phases, or a service that other loads share.
    """
    buses, lines = _service(grid, load)
    result = {}
    for phase in "abc":
        moved = replace(
            grid,
            buses=tuple(replace(bus, phases=phase) if bus.id in buses else bus for bus in grid.buses),
            lines=tuple(replace(line, phases=phase) if line.id in lines else line for line in grid.lines),
            loads=tuple(replace(item, phases=phase) if item.id == load else item for item in grid.loads),
        )
        follow = buses | {load}
        own = [with_changes(meter, phase=phase) if _moves(meter, follow, lines) else meter for meter in meters]
        result[phase] = Estimator(compile_network(moved, area=area), own)
    return result


def _moves(meter: Meter, places: set[str], lines: set[str]) -> bool:
    return meter.id in (lines if meter.at.startswith("branch") else places)


def _service(grid: Grid, load: str) -> tuple[set[str], set[str]]:
    """Return ids of the single-phase buses and lines that supply a single-phase load alone."""
    item = next((each for each in grid.loads if each.id == load), None)
    if item is None or len(item.phases) != 1 or item.connection != "wye":
        raise GridError([Finding("load", (load,), "phases", "expected a single-phase load of the grid")], grid.id)
    single = {bus.id for bus in grid.buses if len(bus.phases) == 1}
    buses, lines, edge = set[str](), set[str](), [item.bus] if item.bus in single else []
    for bus in edge:
        buses.add(bus)
        for line in grid.lines:
            if bus in {line.from_bus, line.to_bus} and line.id not in lines:
                lines.add(line.id)
                other = line.to_bus if line.from_bus == bus else line.from_bus
                edge += [other] if other in single else []
    shared = tuple(each.id for each in grid.loads if each.bus in buses and each.id != load)
    if shared:
        raise GridError([Finding("load", shared, "bus", f"on the same single-phase service as {load}")], grid.id)
    return buses, lines
