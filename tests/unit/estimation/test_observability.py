"""What a set of meters can tell, on feeders with meters taken away."""

import numpy as np
import pytest
from feeders import lv100, metered
from grids import feeder

from flexmeter.errors import MeasurementError
from flexmeter.estimation import Estimator, Meter, load_meters
from flexmeter.estimation.observability import observability
from flexmeter.powerflow import compile_network


@pytest.fixture(scope="module")
def lv():
    return metered(lv100())


def head_meters(network):
    return [Meter(q, "head", network.head_bus, p) for q in ("active_power", "reactive_power") for p in "abc"]


def test_fully_metered_feeder_is_observable(lv):
    found = observability(lv.estimator.network, lv.meters)
    assert found.unobservable_nodes == ()
    assert found.unobservable_injections == ()
    assert found.redundancy == 77
    assert found.readings.visible.sum() == pytest.approx(77, abs=0.1)
    assert {meter.quantity for meter in found.critical_meters} <= {"active_power", "reactive_power"}
    size = found.detectable()
    assert (size[:80] < 20).all()
    assert (size[80:160] > 1000).all()


def test_sigmas_are_those_of_an_estimate_there(lv):
    found = observability(lv.estimator.network, lv.meters)
    estimate = lv.estimator.estimate(lv.true, lv.sigma)
    assert np.allclose(found.sigma_voltage_v, estimate.sigma_voltage_v[:, 0], rtol=0.05)


def test_unread_loads_are_named_and_a_head_meter_helps_one_but_not_two_of_a_phase(lv):
    network = lv.estimator.network
    names = [row for row in network.injections if row[1] == "a"][3:5]

    def without(rows):
        gone = {name for name, _ in rows}
        return [meter for meter in lv.meters if meter.id not in gone or meter.quantity == "voltage"]

    alone = observability(network, without(names))
    assert alone.unobservable_injections == tuple(names)
    summed = observability(network, [*without(names[:1]), *head_meters(network)])
    assert summed.unobservable_injections == ()
    two = observability(network, [*without(names), *head_meters(network)])
    assert two.unobservable_injections == tuple(names)


def test_a_phase_without_voltage_readings_is_named(lv):
    meters = [meter for meter in lv.meters if not (meter.quantity == "voltage" and meter.phase == "c")]
    found = observability(lv.estimator.network, meters)
    assert {phase for _, phase in found.unobservable_nodes} == {"c"}
    assert len(found.unobservable_nodes) == sum(phase == "c" for _, phase in lv.estimator.network.nodes)
    assert np.isnan(found.sigma_voltage_v[lv.estimator.network.node_row["head", "c"]])


def test_nothing_read_nothing_observable():
    network = compile_network(feeder())
    found = observability(network, ())
    assert found.unobservable_nodes == network.nodes
    assert found.unobservable_injections == network.injections
    assert found.redundancy <= 0


def test_share_of_forecasts_is_the_explained_variance(lv):
    """The share from forecasts must be what their noise alone adds, by draws of the forecast mean."""
    network = lv.estimator.network
    name, phase = network.injections[10]
    meters = [meter for meter in lv.meters if meter.id != name or meter.quantity == "voltage"]
    found = observability(network, meters)
    rows = [row for row, meter in enumerate(lv.meters) if meter in set(meters)]
    sigma = lv.sigma[rows]
    n = 400
    rng = np.random.default_rng(5)
    noise = sigma * rng.standard_normal((len(rows), n))
    estimate = Estimator(network, meters).estimate(lv.true[rows] + noise, sigma)
    node = network.node_row[f"{name[1:]}", phase]
    from_readings = np.var(np.abs(estimate.voltage_v[node]))
    assert from_readings == pytest.approx((1 - found.node_share[node]) * found.sigma_voltage_v[node] ** 2, rel=0.25)


def test_meters_that_do_not_exist_are_refused(lv):
    with pytest.raises(MeasurementError, match="nowhere"):
        observability(
            lv.estimator.network, [*load_meters(lv.estimator.network), Meter("voltage", "bus", "nowhere", "a")]
        )
