"""Meters on edges: one scalar that depends on the voltage and the current of an edge (P, Q, |I|, sums, phasors).

A reading z = H_V V + H_J J + noise(var) on a message J | V ~ N(A V + b, R) is a rank-one (Kalman) update. With
g = R H_J, h = A' H_J + H_V, S = H_J g + var and rho = r - H_J b (r the residual at the present point):

    b += g rho / S    A -= g h' / S    R -= g g' / S    L += h h' / S    eta += h rho / S

On the way down the force on the current below the meter differs from that above it: with mu = (rho - g' lambda -
h' dV) / S it is lambda + H_J mu, and Psi changes accordingly. No reading (nan) is S = infinity.
"""

from __future__ import annotations

import math

from flexmeter.estimation.blocks import dot
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import WorkArray, lane, load, square_root, store, where_positive, width, with_lane

ACTIVE, REACTIVE, CURRENT = 0, 1, 2
CURRENT_REAL, CURRENT_IMAGINARY, CURRENT_ANGLE = 3, 4, 5
VOLTAGE_REAL, VOLTAGE_IMAGINARY, VOLTAGE_ANGLE = 6, 7, 8
PHASOR = CURRENT_REAL
"""Kinds from this one on know an angle."""
SMALLEST_A = 1e-9
H_V, H_J, G, H, RHO, INVERSE, READING, VARIANCE, KNOWN, LATER, BENT, KEPT = 0, 6, 12, 18, 24, 25, 26, 27, 28, 29, 30, 31
FLOW = 32
"""Items of a meter: H_V, H_J, g, h (6 each), rho, 1/S, reading, its variance, whether it counts (1 or 0), whether there
is a reading at all (a current's magnitude says nothing of its direction and may have to stay out), and the variance of
what is read that its gradient does not show (during the rough estimate: of the reading alone), whether it
counts apart from what is being asked at no load."""


@inlined
def wrapped(angle: float) -> float:
    """Return an angle between -pi and pi."""
    return angle - 2 * math.pi * math.floor(angle / (2 * math.pi) + 0.5)


@routine
def angle_off(reading: float, re: float, im: float) -> float:
    """Return what an angle reading differs from the angle of re + j im, the short way round."""
    off = re
    for k in range(width(re)):
        off = with_lane(off, k, wrapped(lane(reading, k) - math.atan2(lane(im, k), lane(re, k))))
    return off


@inlined
def off_by(reading: float, kind: int, v_re: float, v_im: float, j_re: float, j_im: float) -> float:
    """Return the reading minus what a phase's voltage and current say it should be."""
    value = 0.0
    if kind == ACTIVE:
        value = v_re * j_re + v_im * j_im
    elif kind == REACTIVE:
        value = v_im * j_re - v_re * j_im
    elif kind == CURRENT:
        value = square_root(j_re * j_re + j_im * j_im)
    elif kind == CURRENT_REAL:
        value = j_re
    elif kind == CURRENT_IMAGINARY:
        value = j_im
    elif kind == VOLTAGE_REAL:
        value = v_re
    elif kind == VOLTAGE_IMAGINARY:
        value = v_im
    elif kind == CURRENT_ANGLE:
        return angle_off(reading, j_re, j_im)
    else:
        return angle_off(reading, v_re, v_im)
    return reading - value


@inlined
def across(w: WorkArray, at: int, plus: int, minus: int) -> tuple[float, float]:
    """Return a phase of a three-phase vector, or its difference to another one."""
    re, im = load(w, at + 2 * plus), load(w, at + 2 * plus + 1)
    if minus >= 0:
        re = re - load(w, at + 2 * minus)
        im = im - load(w, at + 2 * minus + 1)
    return re, im


@inlined
def put_gradient(w: WorkArray, at: int, plus: int, minus: int, re: float, im: float) -> None:
    """Write a gradient with respect to a phase, or the difference of two."""
    store(w, at + 2 * plus, re)
    store(w, at + 2 * plus + 1, im)
    if minus >= 0:
        store(w, at + 2 * minus, -re)
        store(w, at + 2 * minus + 1, -im)


@routine
def linearise(w: WorkArray, at: int, kind: int, phase: int, minus: int, v: int, j: int) -> float:
    """Write H_V and H_J at the present point; return the residual. `minus` is a voltmeter's other phase, or -1."""
    for k in range(12):
        store(w, at + H_V + k, 0.0)
    v_re, v_im = across(w, v, phase, minus)
    j_re, j_im = across(w, j, phase, -1)
    one, zero = 1.0, 0.0
    if kind == ACTIVE:
        put_gradient(w, at + H_V, phase, -1, j_re, j_im)
        put_gradient(w, at + H_J, phase, -1, v_re, v_im)
    elif kind == REACTIVE:
        put_gradient(w, at + H_V, phase, -1, zero - j_im, j_re)
        put_gradient(w, at + H_J, phase, -1, v_im, zero - v_re)
    elif kind in (CURRENT, CURRENT_ANGLE):
        size = square_root(j_re * j_re + j_im * j_im)
        size = where_positive(size - SMALLEST_A, size, SMALLEST_A)
        if kind == CURRENT:
            put_gradient(w, at + H_J, phase, -1, j_re / size, j_im / size)
        else:
            put_gradient(w, at + H_J, phase, -1, zero - j_im / (size * size), j_re / (size * size))
    elif kind == CURRENT_REAL:
        put_gradient(w, at + H_J, phase, -1, one, zero)
    elif kind == CURRENT_IMAGINARY:
        put_gradient(w, at + H_J, phase, -1, zero, one)
    elif kind == VOLTAGE_REAL:
        put_gradient(w, at + H_V, phase, minus, one, zero)
    elif kind == VOLTAGE_IMAGINARY:
        put_gradient(w, at + H_V, phase, minus, zero, one)
    else:
        square = v_re * v_re + v_im * v_im
        put_gradient(w, at + H_V, phase, minus, zero - v_im / square, v_re / square)
    return off_by(load(w, at + READING), kind, v_re, v_im, j_re, j_im)


@routine
def flow_up(w: WorkArray, at: int, residual: float, a: int, r: int, information: int, b: int, eta: int) -> None:
    """Update a message (A, R, L, b, eta at these places) with the meter, whose H is set."""
    for i in range(6):
        g, h = 0.0, load(w, at + H_V + i)
        for k in range(6):
            g = g + load(w, r + 6 * i + k) * load(w, at + H_J + k)
            h = h + load(w, a + 6 * k + i) * load(w, at + H_J + k)
        store(w, at + G + i, g)
        store(w, at + H + i, h)
    spread = dot(w, at + H_J, at + G) + load(w, at + VARIANCE)
    inverse = load(w, at + KNOWN) / where_positive(spread, spread, 1.0)
    rho = residual - dot(w, at + H_J, b)
    store(w, at + RHO, rho)
    store(w, at + INVERSE, inverse)
    for i in range(6):
        gain, pull = load(w, at + G + i) * inverse, load(w, at + H + i) * inverse
        store(w, b + i, load(w, b + i) + gain * rho)
        store(w, eta + i, load(w, eta + i) + pull * rho)
        for k in range(6):
            n = 6 * i + k
            store(w, a + n, load(w, a + n) - gain * load(w, at + H + k))
            store(w, r + n, load(w, r + n) - gain * load(w, at + G + k))
            store(w, information + n, load(w, information + n) + pull * load(w, at + H + k))


@routine
def flow_down(w: WorkArray, at: int, dv: int, force: int) -> None:
    """Turn the force above the meter into the one below it."""
    mu = load(w, at + RHO) - dot(w, at + G, force) - dot(w, at + H, dv)
    mu = mu * load(w, at + INVERSE)
    for k in range(6):
        store(w, force + k, load(w, force + k) + load(w, at + H_J + k) * mu)


@routine
def flow_psi(w: WorkArray, at: int, vv: int, vl: int, ll: int, scratch: int) -> None:
    """Turn Psi above the meter into the one below it."""
    inverse = load(w, at + INVERSE)
    size = 0.0
    for i in range(6):
        c, d = 0.0, 0.0
        for k in range(6):
            c = c + load(w, vv + 6 * i + k) * load(w, at + H + k) + load(w, vl + 6 * i + k) * load(w, at + G + k)
            d = d + load(w, vl + 6 * k + i) * load(w, at + H + k) + load(w, ll + 6 * i + k) * load(w, at + G + k)
        store(w, scratch + i, c * inverse)
        store(w, scratch + 6 + i, d * inverse)
        size = size + (load(w, at + H + i) * c + load(w, at + G + i) * d) * inverse * inverse
    for i in range(6):
        x = load(w, at + H_J + i)
        for k in range(6):
            y = load(w, at + H_J + k)
            n = 6 * i + k
            store(w, vl + n, load(w, vl + n) - load(w, scratch + i) * y)
            change = (size - inverse) * x * y - load(w, scratch + 6 + i) * y - x * load(w, scratch + 6 + k)
            store(w, ll + n, load(w, ll + n) + change)


@routine
def flow_misfit(w: WorkArray, at: int, kind: int, phase: int, minus: int, v: int, j: int) -> tuple[float, float]:
    """Return the meter's part of J, and by how much an exact reading is missed, squared."""
    v_re, v_im = across(w, v, phase, minus)
    j_re, j_im = across(w, j, phase, -1)
    off = off_by(load(w, at + READING), kind, v_re, v_im, j_re, j_im)
    known, variance = load(w, at + KNOWN), load(w, at + VARIANCE)
    inexact = variance * known
    part = where_positive(inexact, off * off / where_positive(inexact, inexact, 1.0), 0.0)
    return part, where_positive(variance, 0.0, off * off * known)


@routine
def quadratic_form(w: WorkArray, on_v: int, on_j: int, vv: int, jv: int, jj: int) -> float:
    """Return the variance of on_v' V + on_j' J."""
    total = 0.0
    for i in range(6):
        x, y = load(w, on_v + i), load(w, on_j + i)
        one, two, three = 0.0, 0.0, 0.0
        for k in range(6):
            one = one + load(w, vv + 6 * i + k) * load(w, on_v + k)
            two = two + load(w, jv + 6 * i + k) * load(w, on_v + k)
            three = three + load(w, jj + 6 * i + k) * load(w, on_j + k)
        total = total + x * one + y * (two + two + three)
    return total
