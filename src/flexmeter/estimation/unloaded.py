"""What is asked at no load, where losses tell nothing: which way a current flows, whether a voltage is known.

- The magnitude of a current says nothing of its direction. It counts only where the other readings tell the direction
  so well that the circle |J| = const is as good as its tangent (`admit_currents`). The losses are not asked: they tell
  the square of a current, and a covariance linearised on one side of zero takes that for its direction.
- Losses tell of a voltage that no reading tells, but badly and of more than one: it gets the prior.
- They tell of a power, but not its sign: the first, rough estimate listens little to them (`set_losses_aside`), and the
  iteration proper starts on the right side.
"""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE
from flexmeter.estimation.aggregate import CURRENT as AREA_CURRENT
from flexmeter.estimation.bends import bent_variance, current_block, current_variances
from flexmeter.estimation.blocks import clear
from flexmeter.estimation.descent import factorise
from flexmeter.estimation.deviations import write_covariances
from flexmeter.estimation.flow import BENT, CURRENT, CURRENT_ANGLE, FLOW, KEPT, KNOWN, LATER, REACTIVE, VARIANCE
from flexmeter.estimation.leaf import LEAF, POWER_VARIANCE, SOFT, WEIGHT, I
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.move import keep, restore
from flexmeter.estimation.places import BUS, BUS_J, BUS_SHUNT
from flexmeter.estimation.root import ROOT_PRIOR, ROOT_UNTOLD
from flexmeter.estimation.start import settle_voltages
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, largest, load, put, store, where_positive

STIFF = 1e4
"""Held means with a hundredth of the prior's sigma."""
DIRECTION = 3.0
"""A current's direction is known if the current is this many times its own standard deviation."""
SLIGHT = 0.01
"""What bends less than this part of the variance is left to the gradient."""
SOFTER = 30.0
"""Bends of neighbouring readings add up: in the rough estimate each counts this many times."""
BEND, FLAT = 1.0, 1e-3
"""The circle may leave its tangent by so many sigmas of the reading, or by this part of the current."""


@inlined
def factorise_unloaded(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Factorise at no load, where losses tell nothing; readings of a current alone do not count."""
    keep(w, at, m)
    for leaf in range(len(m.leaf_plus)):
        clear(w, at.leaf + LEAF * leaf + I, 2)
    for k in range(len(m.aggregate_bus)):
        clear(w, at.aggregate + AGGREGATE * k + AREA_CURRENT, 6)
    for k in range(len(m.parent)):
        clear(w, at.bus + BUS * k + BUS_J, 6)
        clear(w, at.bus + BUS * k + BUS_SHUNT, 6)
    for flow in range(len(m.flow_kind)):
        here = at.flow + FLOW * flow
        store(w, here + KEPT, load(w, here + KNOWN))
        if m.flow_kind[flow] == CURRENT or m.flow_kind[flow] == CURRENT_ANGLE:
            store(w, here + KNOWN, 0.0)
    settle_voltages(w, at, m)
    factorise(w, at, m)
    restore(w, at, m)
    for flow in range(len(m.flow_kind)):
        store(w, at.flow + FLOW * flow + KNOWN, load(w, at.flow + FLOW * flow + KEPT))


@routine
def covariances_unloaded(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int
) -> None:
    """Write the covariances at no load."""
    factorise_unloaded(w, at, m)
    write_covariances(w, at, m, above, start, count)


@inlined
def widest_forecast(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return the largest variance of a forecast power that takes part [W^2, var^2]."""
    widest = 0.0
    for leaf in range(len(m.leaf_plus)):
        here = at.leaf + LEAF * leaf
        for part in range(2):
            variance = load(w, here + POWER_VARIANCE + part) * load(w, here + SOFT + part)
            widest = where_positive(variance - widest, variance, widest)
    return widest


@inlined
def are_read(w: WorkArray, at: Places, m: EstimatorModel, first: int, only: int) -> bool:
    """Return whether any meter on an edge from `first` on has a reading; only of one kind, or of any (-1)."""
    found = 0.0
    for flow in range(first, len(m.flow_kind)):
        if only < 0 or m.flow_kind[flow] == only:
            found = found + load(w, at.flow + FLOW * flow + LATER)
    return largest(found) > 0.0


@inlined
def are_voltages_read(w: WorkArray, at: Places, m: EstimatorModel) -> bool:
    """Return whether every phase has a voltage reading in every scenario, and no transformer mixes the phases."""
    a, b, c = 0.0, 0.0, 0.0
    for leaf in range(len(m.leaf_plus)):
        if m.leaf_minus[leaf] < 0:
            weight = load(w, at.leaf + LEAF * leaf + WEIGHT)
            if m.leaf_plus[leaf] == 0:
                a = a + weight
            elif m.leaf_plus[leaf] == 1:
                b = b + weight
            else:
                c = c + weight
    turned = 0
    for k in range(len(m.parent)):
        turned += m.has_transfer[k]
    missing = where_positive(a, where_positive(b, where_positive(c, 0.0, 1.0), 1.0), 1.0)
    return turned == 0 and not largest(missing) > 0.0


@inlined
def losses_tell(w: WorkArray, at: Places, m: EstimatorModel) -> bool:
    """Return whether losses may tell what no reading does: not those that only the head's meters see."""
    if are_read(w, at, m, m.first_flow[1], -1):
        return True
    return are_read(w, at, m, 0, -1) and not are_voltages_read(w, at, m)


@routine
def set_losses_aside(w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int) -> bool:
    """Prepare an estimate that listens little to losses; return whether it is another than without.

    Head magnitudes which only losses would tell are held at nominal; P and Q of edges where a wide forecast bends them
    get the variance of the bend in addition, many times.
    """
    wide = largest(widest_forecast(w, at, m)) > 0.0
    if wide:
        covariances_unloaded(w, at, m, above, start, count)
    else:
        factorise_unloaded(w, at, m)
    bends = 0.0
    for k in range(3):
        untold = load(w, at.root + ROOT_PRIOR + k)
        store(w, at.root + ROOT_UNTOLD + k, untold * STIFF)
        bends = bends + untold
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here = at.flow + FLOW * flow
            variance = load(w, here + VARIANCE)
            store(w, here + BENT, variance)
            if wide and m.flow_kind[flow] <= REACTIVE:
                bent = bent_variance(w, at, m, k, flow) * load(w, here + KNOWN)
                bent = where_positive(bent - variance * SLIGHT, bent, 0.0)
                store(w, here + VARIANCE, variance + bent * SOFTER)
                bends = where_positive(bent, 1.0, bends)
    return largest(bends) > 0.0


@inlined
def take_losses_back(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Give all readings their own variance, and voltages that only losses tell the prior."""
    for k in range(3):
        store(w, at.root + ROOT_UNTOLD + k, load(w, at.root + ROOT_UNTOLD + k) * (1.0 / STIFF))
    for flow in range(len(m.flow_kind)):
        store(w, at.flow + FLOW * flow + VARIANCE, load(w, at.flow + FLOW * flow + BENT))


@inlined
def untold_voltages(w: WorkArray, at: Places) -> float:
    """Return > 0 where only losses would tell of a head voltage."""
    return load(w, at.root + ROOT_UNTOLD) + load(w, at.root + ROOT_UNTOLD + 1) + load(w, at.root + ROOT_UNTOLD + 2)


@routine
def admit_currents(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, left_out: FloatArray, start: int, count: int
) -> None:
    """Let those magnitudes of currents count whose direction the others tell; note (1) which do not."""
    covariances_unloaded(w, at, m, above, start, count)
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, phase = at.flow + FLOW * flow, m.flow_phase[flow]
            if m.flow_kind[flow] == CURRENT:
                spread = current_block(w, at, k, phase)
                along, across, square = current_variances(w, at.bus + BUS * k + BUS_J + 2 * phase, spread)
                known = where_positive(square - DIRECTION**2 * (along + across), load(w, here + LATER), 0.0)
                limit = load(w, here + VARIANCE) * BEND**2 + square * FLAT**2
                store(w, here + KNOWN, where_positive(limit * 4.0 * square - across * across, known, 0.0))
            put(left_out, flow, start, count, load(w, here + LATER) - load(w, here + KNOWN))
