"""The root when phasors are read: the angles of the head voltages are unknowns too.

Without a phasor the angles of the head voltages are given (`root`). A scenario with a reading that knows an angle frees
them: to the columns a of the root's basis, which move magnitudes, come the columns i a, which turn the voltages. With
three free magnitudes the angles between the phases are held together by pseudo-readings: the deviation d_p of each
phase's angle from the given one, less their mean, is 0 +- SPREAD (two readings, since only differences count):

    J += sum_p (d_p - mean d)^2 / SPREAD^2        L += G' P G        eta -= G' P d        P = (I - 1 1' / 3) / SPREAD^2

A source without zero sequence, or a balanced one, turns as a whole and needs no pseudo-reading. What no reading says
anything about is held.
"""

from __future__ import annotations

import math

from flexmeter.estimation.aggregate import AGGREGATE, CURRENT
from flexmeter.estimation.flow import (
    CURRENT_IMAGINARY,
    CURRENT_REAL,
    FLOW,
    KNOWN,
    PHASOR,
    READING,
    VOLTAGE_IMAGINARY,
    VOLTAGE_REAL,
    across,
    angle_off,
)
from flexmeter.estimation.leaf import LEAF, I, V
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import (
    BUS,
    BUS_A,
    BUS_B,
    BUS_DJ,
    BUS_DV,
    BUS_ETA,
    BUS_J,
    BUS_L,
    BUS_LAMBDA,
    BUS_SHUNT,
    BUS_V,
    WIDE_COLUMNS,
    WIDE_DELTA,
    WIDE_DIAGONAL,
    WIDE_FORCE,
    WIDE_FREE,
    WIDE_GAIN,
    WIDE_HALF,
    WIDE_PSI,
)
from flexmeter.estimation.root import ROOT_ANGLE, ROOT_BASIS, ROOT_PRIOR, ROOT_UNTOLD, pull, set_basis, with_prior
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import WorkArray, lane, load, square_root, store, where_positive, width, with_lane

SPREAD = 0.01
"""Standard deviation of the angle between a phase's head voltage and where it should be [rad]: at the LV busbars of
the three-level study 0.004 to 0.010 were seen; 2 % of negative sequence, the limit of EN 50160, turn it by 0.02."""
HELD = 1e-12
"""A pivot below this part of its diagonal: the readings say nothing about the direction."""


@routine
def free_angles(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Note which scenarios have a reading that knows an angle, and turn the start to meet these readings."""
    known, re, im = 0.0, 0.0, 0.0
    for k in range(len(m.parent)):
        for flow in range(m.first_flow[k], m.first_flow[k + 1]):
            if m.flow_kind[flow] >= PHASOR:
                here = at.flow + FLOW * flow
                known = known + load(w, here + KNOWN)
                x, y = turn_of(w, here, m.flow_kind[flow], m.flow_phase[flow], m.flow_minus[flow], at.bus + BUS * k)
                re, im = re + x, im + y
    store(w, at.wide + WIDE_FREE, where_positive(known, 1.0, 0.0))
    size = square_root(re * re + im * im)
    divisor = where_positive(size, size, 1.0)
    turn_all(w, at, m, where_positive(size, re / divisor, 1.0), im / divisor)


@inlined
def turn_of(w: WorkArray, here: int, kind: int, phase: int, minus: int, bus: int) -> tuple[float, float]:
    """Return the phasor reading over the present value: a complex number whose angle is the turn that is missing."""
    re, im = across(w, bus + BUS_J, phase, -1)
    if kind >= VOLTAGE_REAL:
        re, im = across(w, bus + BUS_V, phase, minus)
    square = re * re + im * im
    inverse2 = where_positive(square - 1e-12, load(w, here + KNOWN) / square, 0.0)
    z = load(w, here + READING)
    if kind in (CURRENT_REAL, VOLTAGE_REAL):
        return z * re * inverse2, -z * im * inverse2
    if kind in (CURRENT_IMAGINARY, VOLTAGE_IMAGINARY):
        return z * im * inverse2, z * re * inverse2
    x, y = unit(angle_off(z, re, im))
    known = inverse2 * square
    return x * known, y * known


@routine
def unit(angle: float) -> tuple[float, float]:
    """Return cosine and sine."""
    x, y = angle, angle
    for k in range(width(angle)):
        x = with_lane(x, k, math.cos(lane(angle, k)))
        y = with_lane(y, k, math.sin(lane(angle, k)))
    return x, y


@inlined
def turn_pairs(w: WorkArray, first: int, count: int, re: float, im: float) -> None:
    """Multiply complex items by re + j im."""
    for q in range(count):
        x, y = load(w, first + 2 * q), load(w, first + 2 * q + 1)
        store(w, first + 2 * q, x * re - y * im)
        store(w, first + 2 * q + 1, x * im + y * re)


@routine
def turn_all(w: WorkArray, at: Places, m: EstimatorModel, re: float, im: float) -> None:
    """Turn the whole state and the given angles."""
    for k in range(len(m.parent)):
        bus = at.bus + BUS * k
        turn_pairs(w, bus + BUS_V, 3, re, im)
        turn_pairs(w, bus + BUS_J, 3, re, im)
        turn_pairs(w, bus + BUS_SHUNT, 3, re, im)
    for leaf in range(len(m.leaf_plus)):
        turn_pairs(w, at.leaf + LEAF * leaf + V, 1, re, im)
        turn_pairs(w, at.leaf + LEAF * leaf + I, 1, re, im)
    for k in range(len(m.aggregate_bus)):
        turn_pairs(w, at.aggregate + AGGREGATE * k + CURRENT, 3, re, im)
    turn_pairs(w, at.root + ROOT_ANGLE, 3, re, im)
    set_basis(w, at.root, m.symmetry)


@inlined
def write_deltas(w: WorkArray, at: Places) -> None:
    """Write each phase's angle from where it should be, less their mean."""
    total = 0.0
    for p in range(3):
        v = at.bus + BUS_V + 2 * p
        re, im = load(w, v), load(w, v + 1)
        x, y = load(w, at.root + ROOT_ANGLE + 2 * p), load(w, at.root + ROOT_ANGLE + 2 * p + 1)
        delta = -angle_off(0.0, re * x + im * y, im * x - re * y)
        store(w, at.wide + WIDE_DELTA + p, delta)
        total = total + delta
    for p in range(3):
        store(w, at.wide + WIDE_DELTA + p, load(w, at.wide + WIDE_DELTA + p) - total * (1.0 / 3.0))


@routine
def spread_objective(w: WorkArray, at: Places, symmetry: int) -> float:
    """Return the pseudo-readings' part of J."""
    total = 0.0
    if symmetry == 0:
        write_deltas(w, at)
        for p in range(3):
            delta = load(w, at.wide + WIDE_DELTA + p)
            total = total + delta * delta
    return total * load(w, at.wide + WIDE_FREE) * (1.0 / SPREAD**2)


@routine
def spread_up(w: WorkArray, at: Places) -> None:
    """Add the pseudo-readings to the root's message."""
    write_deltas(w, at)
    weight = load(w, at.wide + WIDE_FREE) * (1.0 / SPREAD**2)
    for p in range(3):
        p_re, p_im = angle_gradient(w, at.bus + BUS_V + 2 * p)
        eta = at.bus + BUS_ETA + 2 * p
        pull_p = weight * load(w, at.wide + WIDE_DELTA + p)
        store(w, eta, load(w, eta) - pull_p * p_re)
        store(w, eta + 1, load(w, eta + 1) - pull_p * p_im)
        for q in range(3):
            q_re, q_im = angle_gradient(w, at.bus + BUS_V + 2 * q)
            share = weight * ((1.0 if p == q else 0.0) - 1.0 / 3.0)
            block = at.bus + BUS_L + 12 * p + 2 * q
            store(w, block, load(w, block) + share * p_re * q_re)
            store(w, block + 1, load(w, block + 1) + share * p_re * q_im)
            store(w, block + 6, load(w, block + 6) + share * p_im * q_re)
            store(w, block + 7, load(w, block + 7) + share * p_im * q_im)


@inlined
def angle_gradient(w: WorkArray, v: int) -> tuple[float, float]:
    """Return the gradient of a voltage's angle."""
    re, im = load(w, v), load(w, v + 1)
    inverse2 = 1.0 / (re * re + im * im)
    return -im * inverse2, re * inverse2


@routine
def solve_wide_root(w: WorkArray, at: Places, nominal: float, symmetry: int) -> None:
    """Write the root's step (dV, dJ, lambda = 0) and its Psi, with the angles free where a phasor is read."""
    write_columns(w, at)
    write_gain(w, at)
    for k in range(3):
        store(w, at.root + ROOT_PRIOR + k, eliminate(w, at.wide, k, nominal, at.root + ROOT_UNTOLD))
    for k in range(3, 6):
        eliminate(w, at.wide, k, 0.0, at.root + ROOT_UNTOLD)
    if symmetry == 2:  # columns of zeros: their prior holds numbers that nothing looks at
        store(w, at.root + ROOT_PRIOR + 1, load(w, at.root + ROOT_PRIOR))
        store(w, at.root + ROOT_PRIOR + 2, load(w, at.root + ROOT_PRIOR))
    for k in range(3):
        force = at.wide + WIDE_FORCE + k
        help_k = load(w, at.root + ROOT_PRIOR + k)
        store(w, force, load(w, force) + help_k * pull(w, at.bus, at.root, k, nominal))
    write_step(w, at)


@inlined
def write_columns(w: WorkArray, at: Places) -> None:
    """Write the six directions of the head voltages: a, and i a where the angles are free."""
    free = load(w, at.wide + WIDE_FREE)
    for k in range(3):
        own, turned = at.wide + WIDE_COLUMNS + 6 * k, at.wide + WIDE_COLUMNS + 6 * (3 + k)
        for q in range(3):
            re, im = load(w, at.root + ROOT_BASIS + 6 * k + 2 * q), load(w, at.root + ROOT_BASIS + 6 * k + 2 * q + 1)
            store(w, own + 2 * q, re)
            store(w, own + 2 * q + 1, im)
            store(w, turned + 2 * q, -im * free)
            store(w, turned + 2 * q + 1, re * free)


@inlined
def write_gain(w: WorkArray, at: Places) -> None:
    """Write the gain c' L c of the directions and the forces c' eta on them."""
    columns, half = at.wide + WIDE_COLUMNS, at.wide + WIDE_HALF
    for k in range(6):
        force = 0.0
        for i in range(6):
            total = 0.0
            for j in range(6):
                total = total + load(w, at.bus + BUS_L + 6 * i + j) * load(w, columns + 6 * k + j)
            store(w, half + 6 * k + i, total)
            force = force + load(w, columns + 6 * k + i) * load(w, at.bus + BUS_ETA + i)
        store(w, at.wide + WIDE_FORCE + k, force)
    for k in range(6):
        for j in range(6):
            total = 0.0
            for i in range(6):
                total = total + load(w, columns + 6 * k + i) * load(w, half + 6 * j + i)
            store(w, at.wide + WIDE_GAIN + 6 * k + j, total)
        store(w, at.wide + WIDE_DIAGONAL + k, load(w, at.wide + WIDE_GAIN + 7 * k))


@inlined
def eliminate(w: WorkArray, wide: int, k: int, nominal: float, untold: int) -> float:
    """Take one direction through the inversion of the gain; return whether it needed the prior (magnitudes only)."""
    gain = wide + WIDE_GAIN
    pivot, helped = load(w, gain + 7 * k), 0.0
    if nominal > 0.0:
        pivot, helped = with_prior(pivot, nominal, load(w, untold + k))
    inverse = where_positive(pivot - load(w, wide + WIDE_DIAGONAL + k) * HELD, 1.0 / pivot, 0.0)
    for i in range(6):
        if i != k:
            left = load(w, gain + 6 * i + k) * inverse
            for j in range(6):
                if j != k:
                    here = gain + 6 * i + j
                    store(w, here, load(w, here) - left * load(w, gain + 6 * k + j))
    for i in range(6):
        if i != k:
            store(w, gain + 6 * i + k, -load(w, gain + 6 * i + k) * inverse)
            store(w, gain + 6 * k + i, load(w, gain + 6 * k + i) * inverse)
    store(w, gain + 7 * k, inverse)
    return helped


@inlined
def write_step(w: WorkArray, at: Places) -> None:
    """Write the step of voltage and current at the root, and Psi."""
    columns, half, inverse = at.wide + WIDE_COLUMNS, at.wide + WIDE_HALF, at.wide + WIDE_GAIN
    for i in range(6):  # half = c (c' L c)^-1
        for k in range(6):
            total = 0.0
            for j in range(6):
                total = total + load(w, columns + 6 * j + i) * load(w, inverse + 6 * j + k)
            store(w, half + 6 * i + k, total)
    for i in range(6):
        step = 0.0
        for k in range(6):
            step = step + load(w, half + 6 * i + k) * load(w, at.wide + WIDE_FORCE + k)
            total = 0.0
            for j in range(6):
                total = total + load(w, half + 6 * i + j) * load(w, columns + 6 * j + k)
            store(w, at.wide + WIDE_PSI + 6 * i + k, total)
        store(w, at.bus + BUS_DV + i, step)
        store(w, at.bus + BUS_LAMBDA + i, 0.0)
    for i in range(6):
        total = load(w, at.bus + BUS_B + i)
        for j in range(6):
            total = total + load(w, at.bus + BUS_A + 6 * i + j) * load(w, at.bus + BUS_DV + j)
        store(w, at.bus + BUS_DJ + i, total)
