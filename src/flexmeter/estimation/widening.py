"""Standard deviations once more where forecasts are wide: what the linear picture of the readings does not show.

- Losses tell the square of a current: a power that nothing else tells has two signs, and the sigma of one of them
  covers neither. Its sigma, and those of the voltages, are then the ones without what the losses tell (`cover_folds`).
- A product of voltage and current bends where a wide forecast leaves much of a current open: P, Q and |J| of branches
  that nothing reads get what their gradients do not show (`bend`).
- Where little is left of a wide forecast's variance, the covariance has it as a small difference of large numbers;
  the response to a force does not (`sharpen`).
"""

from __future__ import annotations

from flexmeter.estimation.bends import bent_variance, current_block, current_variances
from flexmeter.estimation.blocks import dot
from flexmeter.estimation.border import closed_answer
from flexmeter.estimation.covariance import Wanted, leaf_covariance, leaf_sigmas, root_of
from flexmeter.estimation.descent import factorise
from flexmeter.estimation.deviations import Deviations, flow_variance, node_sigma
from flexmeter.estimation.flow import BENT, CURRENT, FLOW, H_J, KNOWN, VARIANCE, G
from flexmeter.estimation.joint import note_touch, told_above
from flexmeter.estimation.leaf import LEAF, POWER_VARIANCE, SOFT, WEIGHT
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_J
from flexmeter.estimation.response import clear_sources, push_flow, push_leaf, read_flow, read_leaf
from flexmeter.estimation.unloaded import SLIGHT, are_read, covariances_unloaded, untold_voltages, widest_forecast
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, largest, load, put, store, take, where_positive

DOUBT = 1e-2
"""Below this part of the sigma that forecasts alone leave, the covariance is asked for once more."""
FOLD, FAR = 1.25, 2.0
"""Losses tell of a quantity if without them its sigma is this many times as large; of voltages as well, once one power
is told by losses so much that only one sign of it can be meant."""


@inlined
def bend(w: WorkArray, at: Places, m: EstimatorModel, out: FloatArray, start: int, count: int) -> None:
    """Note of P, Q, |J| of edges what their gradients do not show, and add it where there is no reading."""
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here = at.flow + FLOW * flow
            store(w, here + BENT, 0.0)
            if m.flow_kind[flow] <= CURRENT:
                s, known = take(w, out, flow, start, count), load(w, here + KNOWN)
                bent = bent_variance(w, at, m, k, flow)
                least = where_positive(known, load(w, here + VARIANCE), s * s) * SLIGHT
                bent = where_positive(bent - least, bent, 0.0)
                store(w, here + BENT, bent)
                put(out, flow, start, count, root_of(s * s + bent * (1.0 - known)))


@routine
def bent_readings(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return what the bends of all readings of edges add to the variance of what the last answer was for.

    A reading moves it by its covariance with the reading over the reading's variance.
    """
    total = 0.0
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here = at.flow + FLOW * flow
            bent, variance = load(w, here + BENT) * load(w, here + KNOWN), load(w, here + VARIANCE)
            if largest(bent) > 0.0:
                gain = read_flow(w, at, flow, k) / where_positive(variance, variance, 1.0)
                total = total + where_positive(variance, gain * gain * bent, 0.0)
    return total


@routine
def widen(
    w: WorkArray, at: Places, m: EstimatorModel, wanted: Wanted, above: FloatArray, out: Deviations, start: int,
    count: int,
) -> None:  # fmt: skip
    """Write the deviations once more of what wide forecasts make nonlinear; factor and covariances are lost."""
    limit = widest_forecast(w, at, m) * DOUBT**2
    if largest(limit) > 0.0:
        bend(w, at, m, out.flow, start, count)
        if are_read(w, at, m, 0, -1):
            sharpen(w, at, m, above, out, start, count)
            cover_folds(w, at, m, wanted, above, out, limit, start, count)


@routine
def sharpen(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, out: Deviations, start: int, count: int
) -> None:
    """Write the deviations of P and Q at loads, P, Q, |J| of edges once more where little is left of a wide one."""
    factorise(w, at, m)
    for k in range(len(m.parent)):
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            for part in range(2):
                row, here = 3 * leaf + part, at.leaf + LEAF * leaf
                before = take(w, out.leaf, row, start, count)
                own = load(w, here + POWER_VARIANCE + part) * load(w, here + SOFT + part) * DOUBT**2
                doubt = own - before * before
                if largest(where_positive(doubt, doubt, 0.0)) > 0.0:
                    clear_sources(w, at, m)
                    push_leaf(w, at, m, leaf, k, part)
                    closed_answer(w, at, m)
                    note_touch(w, at, 0, above)
                    variance = read_leaf(w, at, m, leaf, k, part) - told_above(w, at, 0, 0, above, start, count)
                    put(out.leaf, row, start, count, where_positive(doubt, root_of(variance), before))
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            if m.flow_kind[flow] <= CURRENT:
                before, here = take(w, out.flow, flow, start, count), at.flow + FLOW * flow
                doubt = dot(w, here + H_J, here + G) * DOUBT**2 - before * before  # variance by what is below alone
                if largest(where_positive(doubt, doubt, 0.0)) > 0.0:
                    clear_sources(w, at, m)
                    push_flow(w, at, flow, k)
                    closed_answer(w, at, m)
                    note_touch(w, at, 0, above)
                    variance = read_flow(w, at, flow, k) - told_above(w, at, 0, 0, above, start, count)
                    bent = (load(w, here + BENT) + bent_readings(w, at, m)) * (1.0 - load(w, here + KNOWN))
                    variance = where_positive(-variance, 0.0, variance) + bent
                    put(out.flow, flow, start, count, where_positive(doubt, root_of(variance), before))


@inlined
def is_sharp(w: WorkArray, at: Places, m: EstimatorModel, sigma: FloatArray, start: int, count: int) -> float:
    """Return > 0 where readings tell of a forecast power much more than the forecast, or of a voltage nothing."""
    found = untold_voltages(w, at)
    for leaf in range(len(m.leaf_plus)):
        here = at.leaf + LEAF * leaf
        for part in range(2):
            own = load(w, here + POWER_VARIANCE + part) * load(w, here + SOFT + part)
            s = take(w, sigma, 3 * leaf + part, start, count)
            found = where_positive(own - s * s * FOLD**2, 1.0, found)
    return found


@routine
def cover_folds(
    w: WorkArray, at: Places, m: EstimatorModel, wanted: Wanted, above: FloatArray, out: Deviations, limit: float,
    start: int, count: int,
) -> None:  # fmt: skip
    """Write the deviation at no load of what has no reading, where it is larger; the factor is lost."""
    if not largest(is_sharp(w, at, m, out.leaf, start, count)) > 0.0:
        return
    covariances_unloaded(w, at, m, above, start, count)
    folded = untold_voltages(w, at)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here, plus, minus = at.leaf + LEAF * leaf, m.leaf_plus[leaf], m.leaf_minus[leaf]
            leaf_covariance(w, here, bus, plus, minus)
            p, q, _ = leaf_sigmas(w, here, bus, m.leaf_z[leaf], plus, minus)
            for part in range(2):
                own = load(w, here + POWER_VARIANCE + part) * load(w, here + SOFT + part)
                wider, row, noise = p if part == 0 else q, 3 * leaf + part, own * DOUBT**2
                before = take(w, out.leaf, row, start, count)
                far = where_positive(wider - before * FAR, own, 0.0)
                folded = where_positive(wider * wider - noise, where_positive(far, 1.0, folded), folded)
                put_wider(w, out.leaf, row, wider, noise, own, start, count)
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, noise = at.flow + FLOW * flow, limit
            if m.flow_kind[flow] <= CURRENT:
                if m.flow_kind[flow] == CURRENT:
                    place, noise = bus + BUS_J + 2 * m.flow_phase[flow], limit / m.nominal[k] ** 2
                    variance, _, _ = current_variances(w, place, current_block(w, at, k, m.flow_phase[flow]))
                    variance = variance + bent_variance(w, at, m, k, flow)
                else:
                    variance = flow_variance(w, at, m, k, here, at.head_joint, at.head_joint + 36)
                put_wider(w, out.flow, flow, root_of(variance), noise, 1.0 - load(w, here + KNOWN), start, count)
    for k in range(len(m.parent)):
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            here, plus, minus = at.leaf + LEAF * leaf, m.leaf_plus[leaf], m.leaf_minus[leaf]
            _, _, v = leaf_sigmas(w, here, at.bus + BUS * k, m.leaf_z[leaf], plus, minus)
            unread = where_positive(load(w, here + WEIGHT), 0.0, folded)
            put_wider(w, out.leaf, 3 * leaf + 2, v, 0.0, unread, start, count)
    for node in range(len(wanted.node_spine)):
        put_wider(w, out.node, node, node_sigma(w, at, m, wanted, node), 0.0, folded, start, count)


@inlined
def put_wider(
    w: WorkArray, out: FloatArray, row: int, sigma: float, noise: float, forecast: float, start: int, count: int
) -> None:
    """Replace a deviation of what has no reading (forecast > 0) by one much larger, unless that is only rounding."""
    before = take(w, out, row, start, count)
    wider = where_positive(sigma - before * FOLD, forecast, 0.0)
    put(out, row, start, count, where_positive(sigma * sigma - noise, where_positive(wider, sigma, before), before))
