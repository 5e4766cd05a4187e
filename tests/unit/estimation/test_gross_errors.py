"""One gross error of ten sigma and more among a hundred readings, for every kind of meter that others check."""

import numpy as np
import pytest
from feeders import metered
from grids import feeder
from scipy import stats

from flexmeter.estimation import Estimator, Meter, remove_bad_data, residuals

DRAWS = 1000
POWERS = ("active_power", "reactive_power")


def checked_meters():
    """Sums, transformer and branch meters on top of the customers' own: each of them is checked by the others."""
    found = [Meter(q, "head", "mv", p) for q in POWERS for p in "abc"]
    found += [Meter(q, end, "t", p) for end in ("branch_from", "branch_to") for q in POWERS for p in "abc"]
    found += [Meter(q, "branch_from", "m2", p) for q in (*POWERS, "current") for p in "abc"]
    found += [Meter(q, "branch_to", "m4", p) for q in (*POWERS, "current") for p in "ab"]
    return [*found, *(Meter("voltage", "bus", bus, p) for bus in ("mv", "lv", "f5") for p in "abc")]


@pytest.fixture(scope="module")
def study():
    customers = metered(feeder(shunt=False))
    estimator = Estimator(customers.estimator.network, (*customers.meters, *checked_meters()))
    more = len(estimator.meters) - len(customers.true)
    known = np.vstack([customers.true, np.full((more, 1), np.nan)])
    fitted = estimator.estimate(known, np.ones_like(known), covariance=False).fitted
    true = np.vstack([customers.true, fitted[-more:]])
    share = np.array([0.02 if meter.quantity == "reactive_power" else 0.01 for meter in estimator.meters])
    floor = np.array([0.05 if meter.quantity == "current" else 1.0 for meter in estimator.meters])
    return estimator, true, np.maximum(share * np.abs(true[:, 0]), floor)[:, None]


KINDS = ("voltage load", "voltage bus", "active_power head", "reactive_power head", "active_power branch_from",
         "reactive_power branch_to", "current branch_from", "current branch_to")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_one_error_of_ten_sigma_is_found_and_taken_out(study, kind):
    estimator, true, sigma = study
    rng = np.random.default_rng(KINDS.index(kind))
    z = true + sigma * rng.standard_normal((len(true), DRAWS))
    found = residuals(estimator.estimate(true, sigma), estimator.meters, true, sigma)
    of_kind = np.array([f"{meter.quantity} {meter.at}" == kind for meter in estimator.meters])
    rows = np.flatnonzero(of_kind & (found.visible[:, 0] > 0.4))
    assert len(rows) > 0.5 * of_kind.sum()  # redundant: at least two fifths of an error stays in the residual
    row, where = rng.choice(rows, DRAWS), np.arange(DRAWS)
    z[row, where] = true[row, 0] + rng.choice([-1, 1], DRAWS) * rng.uniform(10, 20, DRAWS) * sigma[row, 0]
    cleaned = remove_bad_data(estimator, z, sigma, false_alarm=0.01)
    removed = np.isnan(cleaned.value)
    assert removed[row, where].mean() >= 0.99
    beside = removed.sum(0) - removed[row, where]
    assert np.mean(beside > 0) <= stats.binom.ppf(0.999, DRAWS, 0.03) / DRAWS


def test_good_readings_are_taken_out_at_the_set_rate(study):
    estimator, true, sigma = study
    z = true + sigma * np.random.default_rng(99).standard_normal((len(true), 2 * DRAWS))
    cleaned = remove_bad_data(estimator, z, sigma, false_alarm=0.01)
    alarms = len({item.scenario for item in cleaned.removals})
    assert stats.binom.ppf(0.0005, 2 * DRAWS, 0.002) <= alarms <= stats.binom.ppf(0.9995, 2 * DRAWS, 0.01)


def test_what_others_do_not_check_says_from_which_size_it_shows(study):
    estimator, true, sigma = study
    found = residuals(estimator.estimate(true, sigma), estimator.meters, true, sigma)
    size = found.detectable(false_alarm=0.01, missed=0.01)[:, 0] / sigma[:, 0]
    power = np.array([meter.at == "load" and meter.quantity in POWERS for meter in estimator.meters])
    sums = np.array([meter.at == "head" for meter in estimator.meters])
    assert np.all(size[sums] < 12)
    assert size[power].max() > 20
    assert np.all(size[~found.critical[:, 0]] < np.inf)
