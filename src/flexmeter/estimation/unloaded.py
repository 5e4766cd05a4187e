"""What is asked at no load, where losses tell nothing: which way a current flows, whether a voltage is known.

- The magnitude of a current says nothing of its direction. It counts only where the other readings tell the direction
  so well that the circle |J| = const is as good as its tangent (`admit_currents`). The losses are not asked: they tell
  the square of a current, and a covariance linearised on one side of zero takes that for its direction.
- Losses tell of a voltage that no reading tells, but badly and of more than one: it gets the prior (`hold_untold`).
"""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE
from flexmeter.estimation.aggregate import CURRENT as AREA_CURRENT
from flexmeter.estimation.blocks import clear
from flexmeter.estimation.covariance import COV_JJ, cell
from flexmeter.estimation.descent import factorise
from flexmeter.estimation.deviations import write_covariances
from flexmeter.estimation.flow import CURRENT, CURRENT_ANGLE, FLOW, KNOWN, LATER, VARIANCE
from flexmeter.estimation.leaf import LEAF, I
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
        if m.flow_kind[flow] == CURRENT or m.flow_kind[flow] == CURRENT_ANGLE:
            store(w, at.flow + FLOW * flow + KNOWN, 0.0)
    settle_voltages(w, at, m)
    factorise(w, at, m)
    restore(w, at, m)
    for flow in range(len(m.flow_kind)):
        if m.flow_kind[flow] == CURRENT_ANGLE:
            store(w, at.flow + FLOW * flow + KNOWN, load(w, at.flow + FLOW * flow + LATER))


@routine
def hold_untold(w: WorkArray, at: Places, m: EstimatorModel) -> bool:
    """Hold the head magnitudes which only losses would tell at nominal; return whether there are any."""
    factorise_unloaded(w, at, m)
    for k in range(3):
        store(w, at.root + ROOT_UNTOLD + k, load(w, at.root + ROOT_PRIOR + k) * STIFF)
    return largest(untold_voltages(w, at)) > 0.0


@inlined
def untold_voltages(w: WorkArray, at: Places) -> float:
    """Return > 0 where only losses would tell of a head voltage."""
    return load(w, at.root + ROOT_UNTOLD) + load(w, at.root + ROOT_UNTOLD + 1) + load(w, at.root + ROOT_UNTOLD + 2)


@inlined
def release_untold(w: WorkArray, at: Places) -> None:
    """Give them the prior: once the powers are about right, losses have one voltage to tell of."""
    for k in range(3):
        store(w, at.root + ROOT_UNTOLD + k, load(w, at.root + ROOT_UNTOLD + k) * (1.0 / STIFF))


@routine
def covariances_unloaded(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int
) -> None:
    """Write the covariances at no load."""
    factorise_unloaded(w, at, m)
    write_covariances(w, at, m, above, start, count)


@routine
def admit_currents(
    w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, left_out: FloatArray, start: int, count: int
) -> None:
    """Let those magnitudes of currents count whose direction the others tell; note (1) which do not."""
    covariances_unloaded(w, at, m, above, start, count)
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        spread = at.head_joint + 36 if k == 0 else bus + COV_JJ
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            here, phase = at.flow + FLOW * flow, m.flow_phase[flow]
            if m.flow_kind[flow] == CURRENT:
                c = cell(w, spread, phase, phase)
                re, im = load(w, bus + BUS_J + 2 * phase), load(w, bus + BUS_J + 2 * phase + 1)
                square = re * re + im * im
                known = where_positive(square - DIRECTION**2 * (c[0] + c[3]), load(w, here + LATER), 0.0)
                across = c[0] * im * im - (c[1] + c[2]) * re * im + c[3] * re * re  # variance, times the square
                limit = load(w, here + VARIANCE) * BEND**2 + square * FLAT**2
                known = where_positive(limit * 4.0 * square * square * square - across * across, known, 0.0)
                store(w, here + KNOWN, known)
            put(left_out, flow, start, count, load(w, here + LATER) - load(w, here + KNOWN))
