"""Meters on branches: one scalar that depends on the voltage and the current of an edge (P, Q, |I|, head sums).

A reading z = H_V V + H_J J + noise(var) on a message J | V ~ N(A V + b, R) is a rank-one (Kalman) update. With
g = R H_J, h = A' H_J + H_V, S = H_J g + var and rho = r - H_J b (r the residual at the present point):

    b += g rho / S    A -= g h' / S    R -= g g' / S    L += h h' / S    eta += h rho / S

On the way down the force on the current below the meter differs from that above it: with mu = (rho - g' lambda -
h' dV) / S it is lambda + H_J mu, and Psi changes accordingly. No reading (nan) is S = infinity.
"""

from __future__ import annotations

from flexmeter.estimation.blocks import dot
from flexmeter.powerflow.lanes import FloatArray, inlined, load, routine, splat, square_root, store, where_positive

ACTIVE, REACTIVE, CURRENT = 0, 1, 2
H_V, H_J, G, H, RHO, INVERSE, READING, VARIANCE, KNOWN = 0, 6, 12, 18, 24, 25, 26, 27, 28
FLOW = 29
"""Items of a meter: H_V, H_J, g, h (6 each), rho, 1/S, reading, its variance, whether there is a reading (1 or 0)."""


@inlined
def value_of(kind: int, v_re: float, v_im: float, j_re: float, j_im: float) -> float:
    """Return P, Q or |I| of a phase."""
    if kind == ACTIVE:
        return v_re * j_re + v_im * j_im
    if kind == REACTIVE:
        return v_im * j_re - v_re * j_im
    return square_root(j_re * j_re + j_im * j_im)


@routine
def linearise(w: FloatArray, at: int, kind: int, phase: int, v: int, j: int) -> float:
    """Write H_V and H_J at the present point; return the residual."""
    for k in range(12):
        store(w, at + H_V + k, splat(0.0))
    v_re, v_im = load(w, v + 2 * phase), load(w, v + 2 * phase + 1)
    j_re, j_im = load(w, j + 2 * phase), load(w, j + 2 * phase + 1)
    on_v, on_j = at + H_V + 2 * phase, at + H_J + 2 * phase
    value = value_of(kind, v_re, v_im, j_re, j_im)
    if kind == ACTIVE:
        store(w, on_v, j_re)
        store(w, on_v + 1, j_im)
        store(w, on_j, v_re)
        store(w, on_j + 1, v_im)
    elif kind == REACTIVE:
        store(w, on_v, splat(0.0) - j_im)
        store(w, on_v + 1, j_re)
        store(w, on_j, v_im)
        store(w, on_j + 1, splat(0.0) - v_re)
    else:
        size = where_positive(value - splat(1e-9), value, splat(1e-9))
        store(w, on_j, j_re / size)
        store(w, on_j + 1, j_im / size)
    return load(w, at + READING) - value


@routine
def flow_up(w: FloatArray, at: int, residual: float, a: int, r: int, information: int, b: int, eta: int) -> None:
    """Update a message (A, R, L, b, eta at these places) with the meter, whose H is set."""
    for i in range(6):
        g, h = splat(0.0), load(w, at + H_V + i)
        for k in range(6):
            g = g + load(w, r + 6 * i + k) * load(w, at + H_J + k)
            h = h + load(w, a + 6 * k + i) * load(w, at + H_J + k)
        store(w, at + G + i, g)
        store(w, at + H + i, h)
    spread = dot(w, at + H_J, at + G) + load(w, at + VARIANCE)
    inverse = load(w, at + KNOWN) / where_positive(spread, spread, splat(1.0))
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
def flow_down(w: FloatArray, at: int, dv: int, force: int) -> None:
    """Turn the force above the meter into the one below it."""
    mu = load(w, at + RHO) - dot(w, at + G, force) - dot(w, at + H, dv)
    mu = mu * load(w, at + INVERSE)
    for k in range(6):
        store(w, force + k, load(w, force + k) + load(w, at + H_J + k) * mu)


@routine
def flow_psi(w: FloatArray, at: int, vv: int, vl: int, ll: int, scratch: int) -> None:
    """Turn Psi above the meter into the one below it."""
    inverse = load(w, at + INVERSE)
    size = splat(0.0)
    for i in range(6):
        c, d = splat(0.0), splat(0.0)
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
def flow_objective(
    w: FloatArray, at: int, kind: int, phase: int, v: int, j: int, dv: int, dj: int, step: float
) -> float:
    """Return the meter's part of J after a step."""
    q = 2 * phase
    v_re, v_im = load(w, v + q) + step * load(w, dv + q), load(w, v + q + 1) + step * load(w, dv + q + 1)
    j_re, j_im = load(w, j + q) + step * load(w, dj + q), load(w, j + q + 1) + step * load(w, dj + q + 1)
    off = load(w, at + READING) - value_of(kind, v_re, v_im, j_re, j_im)
    variance = load(w, at + VARIANCE) * load(w, at + KNOWN)
    return where_positive(variance, off * off / where_positive(variance, variance, splat(1.0)), splat(0.0))


@routine
def quadratic_form(w: FloatArray, on_v: int, on_j: int, vv: int, jv: int, jj: int) -> float:
    """Return the variance of on_v' V + on_j' J."""
    total = splat(0.0)
    for i in range(6):
        x, y = load(w, on_v + i), load(w, on_j + i)
        one, two, three = splat(0.0), splat(0.0), splat(0.0)
        for k in range(6):
            one = one + load(w, vv + 6 * i + k) * load(w, on_v + k)
            two = two + load(w, jv + 6 * i + k) * load(w, on_v + k)
            three = three + load(w, jj + 6 * i + k) * load(w, on_j + k)
        total = total + x * one + y * (two + two + three)
    return total
