"""Results as tables."""

import sys

import numpy as np
import pytest

from flexmeter.errors import InputError
from flexmeter.estimation import (
    Estimator,
    branch_meters,
    in_blocks,
    injection_table,
    load_meters,
    meter_table,
    residuals,
    scenario_table,
    to_pandas,
    voltage_table,
)


@pytest.fixture(scope="module")
def batch(study):
    meters = (*study.meters, *(m for m in branch_meters(study.network) if m not in study.meters))
    estimator = Estimator(study.network, meters)
    n = len(study.meters)
    value, sigma = np.full((len(meters), 3), np.nan), np.ones((len(meters), 1))
    value[:n] = study.readings[:, None] + study.sigma[:, None] * np.random.default_rng(1).standard_normal((n, 3))
    sigma[:n, 0] = study.sigma
    return estimator, value, sigma


def test_every_table_has_ids_phases_and_units(batch):
    estimator, value, sigma = batch
    estimate = estimator.estimate(value, sigma, losses=True)
    names = ("morning", "noon", "evening")
    voltages = voltage_table(estimate, names)
    row = len(estimate.network.nodes) + 4
    assert voltages["scenario"][row].as_py() == "noon"
    assert (voltages["bus"][row].as_py(), voltages["phase"][row].as_py()) == estimate.network.nodes[4]
    np.testing.assert_allclose(voltages["voltage_v"][row].as_py(), abs(estimate.voltage_v[4, 1]))
    np.testing.assert_allclose(voltages["sigma_voltage_v"][row].as_py(), estimate.sigma_voltage_v[4, 1])
    loads = injection_table(estimate, names)
    np.testing.assert_allclose(loads["active_power_w"].to_numpy(), estimate.power_va.real.T.ravel())
    scenarios = scenario_table(estimate, names)
    assert scenarios["status"].to_pylist() == ["converged"] * 3
    assert min(scenarios["sigma_losses_w"].to_pylist()) > 0


def test_meters_give_flows_at_both_ends_and_residuals(batch):
    estimator, value, sigma = batch
    estimate = estimator.estimate(value, sigma)
    table = meter_table(estimate, estimator.meters, value, sigma)
    assert len(table) == value.size
    found = residuals(estimate, estimator.meters, value, sigma)
    read = np.array(table["normalised_residual"].to_pylist(), float).reshape(3, -1).T
    np.testing.assert_allclose(read, found.normalised)
    flows = {
        (row["at"], row["phase"]): row
        for row in table.slice(0, len(estimator.meters)).to_pylist()
        if row["id"] == "m0" and row["quantity"] == "active_power"
    }
    assert flows["branch_from", "a"]["unit"] == "W"
    assert flows["branch_from", "a"]["reading"] is None
    lost = flows["branch_from", "a"]["fitted"] - flows["branch_to", "a"]["fitted"]
    assert 0 < lost < 0.05 * flows["branch_from", "a"]["fitted"]
    assert flows["branch_from", "a"]["sigma_fitted"] > 0


def test_blocks_are_the_whole_in_pieces(batch):
    estimator, value, sigma = batch
    whole = estimator.estimate(value, sigma)
    for part, estimate in in_blocks(estimator, value, sigma, scenarios=2):
        np.testing.assert_allclose(estimate.voltage_v, whole.voltage_v[:, part], rtol=1e-12)


def test_what_nothing_observes_is_named_in_the_table(study):
    meters = [meter for meter in load_meters(study.network) if meter.quantity != "voltage"]
    n = len(study.network.injections)
    estimate = Estimator(study.network, meters).estimate(study.readings[n : 3 * n], study.sigma[n : 3 * n])
    assert set(estimate.unobservable_nodes()) == set(study.network.nodes)
    assert estimate.status == ("partly observable",)
    assert not any(voltage_table(estimate)["observable"].to_pylist())


def test_pandas_on_request_and_a_clear_word_without_it(batch, monkeypatch):
    estimator, value, sigma = batch
    table = voltage_table(estimator.estimate(value, sigma))
    pandas = pytest.importorskip("pandas")
    assert isinstance(to_pandas(table), pandas.DataFrame)
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setattr("flexmeter.estimation.tables.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pandas is not installed"):
        to_pandas(table)


def test_a_wrong_number_of_scenario_names_is_refused(batch):
    estimator, value, sigma = batch
    with pytest.raises(InputError, match="expected 3"):
        voltage_table(estimator.estimate(value, sigma), ["one"])
