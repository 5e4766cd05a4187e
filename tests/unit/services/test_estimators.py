"""The estimators at work: an interval in, an estimate out; what is missing, late or broken is treated as stated."""

import numpy as np
import pytest

from flexmeter.errors import MessageError
from flexmeter.estimation import Reports
from flexmeter.messages import topics
from flexmeter.messages.codec import decode_estimate
from flexmeter.messages.estimate import Estimate
from flexmeter.scenario.field import Field, Minute
from flexmeter.services.areas import handed_over
from flexmeter.services.desk import Answer, Desk, Sender, received_summary
from flexmeter.services.lv import LvArea, lv_desk
from flexmeter.services.mv import MvArea, MvDesk
from flexmeter.services.rest import Topology


@pytest.fixture(scope="module")
def lv_area(feeder: Field) -> LvArea:
    return LvArea(feeder.grid, "LV")


@pytest.fixture(scope="module")
def mv_area(feeder: Field) -> MvArea:
    return MvArea(feeder.grid)


SENDER = Sender("estimator", 1, "eulv")


def desk_of(area: LvArea) -> Desk:
    return lv_desk(area, "fm/v1/tenant/se/lv/LV", SENDER)


def take(desk: Desk, payload: bytes) -> list[Answer]:
    received = received_summary(payload)
    return [] if received is None else desk.take(received)


def estimates(noon: Minute) -> list[bytes]:
    return [one.payload for one in noon.messages if topics.parse(one.topic).kind == "estimate"]


def lv_estimate(area: LvArea, noon: Minute) -> Estimate:
    desk = desk_of(area)
    answers = [answer for payload in estimates(noon) for answer in take(desk, payload)]
    return decode_estimate(answers[0].payload)


def test_the_last_concentrator_completes_the_interval(lv_area: LvArea, noon: Minute) -> None:
    desk = desk_of(lv_area)
    counts = [len(take(desk, payload)) for payload in estimates(noon)]
    assert counts == [0] * (len(counts) - 1) + [1]
    assert desk.waiting == ()


def test_the_estimate_is_near_the_truth_and_says_how_near(feeder: Field, lv_area: LvArea, noon: Minute) -> None:
    estimate = lv_estimate(lv_area, noon)
    state = feeder.truth.state(range(719, 720), feeder.grid.switch_vector)
    for phase in "abc":
        value, sigma = estimate.column("voltage", phase)
        rows = [state.network.node_row[bus, phase] for bus in estimate.elements]
        z = (value - np.abs(state.voltage_v[rows, 0])) / sigma
        assert np.abs(z).max() < 4.5
        assert sigma.max() < 1.0


def test_a_missing_concentrator_widens_the_estimate_and_is_no_stale_value(lv_area: LvArea, noon: Minute) -> None:
    whole = lv_estimate(lv_area, noon)
    desk = desk_of(lv_area)
    for payload in estimates(noon)[1:]:
        assert take(desk, payload) == []
    (answer,) = desk.release(desk.waiting[0])
    less = decode_estimate(answer.payload)
    assert whole.head is not None
    assert less.head is not None
    assert (
        np.sqrt(less.head.covariance.diagonal()[3:6]).max() > 5 * np.sqrt(whole.head.covariance.diagonal()[3:6]).max()
    )


def test_an_estimate_that_did_not_converge_is_not_used(lv_area: LvArea, noon: Minute) -> None:
    import msgspec

    from flexmeter.messages.codec import encode_estimate

    broken = msgspec.structs.replace(decode_estimate(estimates(noon)[0]), status="not_converged")
    desk = desk_of(lv_area)
    assert take(desk, encode_estimate(broken)) == []
    assert desk.waiting == ()


def test_a_malformed_estimate_is_refused(lv_area: LvArea) -> None:
    with pytest.raises(MessageError):
        take(desk_of(lv_area), b"nonsense")


def test_the_mv_estimate_joins_areas_and_topology(
    feeder: Field, lv_area: LvArea, mv_area: MvArea, noon: Minute
) -> None:
    desk = desk_of(lv_area)
    answers = [answer for payload in estimates(noon) for answer in take(desk, payload)]
    mv = MvDesk(mv_area, "fm/v1/tenant/se/mv/MV", SENDER)
    mv.learn(Topology("eulv", 3, ()))
    (answer,) = take(mv, answers[0].payload)
    estimate = decode_estimate(answer.payload)
    assert (estimate.level, estimate.topology, estimate.status) == ("mv", 3, "ok")
    state = feeder.truth.state(range(719, 720), feeder.grid.switch_vector)
    assert estimate.head is not None
    sigma = np.sqrt(estimate.head.covariance.diagonal()[3:6])
    assert np.abs((estimate.head.values[3:6] - state.source_va.real[:, 0]) / sigma).max() < 4.5


def test_a_desk_warms_up_without_any_input(lv_area: LvArea, mv_area: MvArea) -> None:
    mv = MvDesk(mv_area, "topic", SENDER)
    mv.learn(Topology("eulv", 1, ()))
    for desk in (desk_of(lv_area), mv):
        desk.warm()
        assert desk.waiting == ()


def test_a_version_holds_from_its_own_instant_on(mv_area: MvArea) -> None:
    desk = MvDesk(mv_area, "topic", SENDER)
    for version, since in ((1, 1000), (2, 2000), (3, 3000)):
        desk.learn(Topology("eulv", version, (), since))
    desk.learn(Topology("eulv", 2, (), 9000))  # an old version heard again changes nothing
    assert [desk.in_force(t).version for t in (500, 1000, 2500, 3000, 9999)] == [1, 1, 2, 3, 3]


def test_diagonal_hand_over_keeps_variances_and_missing_values_only() -> None:
    covariance = np.arange(81.0).reshape(1, 9, 9, 1) + 1
    covariance[:, 2] = covariance[:, :, 2] = np.nan
    diagonal = handed_over(Reports(np.zeros((1, 9, 1)), covariance), "diagonal").covariance[0, :, :, 0]
    assert np.isnan(diagonal[2]).all()
    kept = [k for k in range(9) if k != 2]
    np.testing.assert_array_equal(np.diag(diagonal)[kept], np.diag(covariance[0, :, :, 0])[kept])
    assert not np.triu(diagonal[np.ix_(kept, kept)], 1).any()
