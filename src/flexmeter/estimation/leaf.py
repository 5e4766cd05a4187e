"""One-phase leaves: a customer's meter seen from the bus it hangs on, as a 2x2 message.

Seen from the bus voltage V the leaf is  J | V ~ N(A V + b, R)  and information (L, eta) on V, all for increments
about the present point and in real form (re, im). With S = V conj(I), c = I / conj(V), v = (Vr, Vi), w = (Vi, -Vr):

    A = dV -> -c conj(dV)    b = conj(r_S / V)    R = (var_p v v' + var_q w w') / |V|^4
    L = weight v v' / |V|^2  eta = weight (z_v - |V|) v / |V|

Crossing the service line z (V_leaf = V - z J) changes it as `message.cross` does for three phases; in 2x2 the
semidefinite inverse (R^-1 + L)^-1 has the closed form used here, which needs no inverse of R or L.
"""

from __future__ import annotations

from flexmeter.estimation.places import BUS_A, BUS_B, BUS_DV, BUS_ETA, BUS_L, BUS_LAMBDA, BUS_R
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, square_root, store, where_positive

Pair = tuple[float, float]
Square = tuple[float, float, float, float]

# places of a leaf's items, relative to its first
POWER, POWER_VARIANCE, MAGNITUDE, WEIGHT = 0, 2, 4, 5
V, I = 6, 8  # noqa: E741
M, A, R, B, L, ETA = 10, 14, 18, 22, 24, 28
DV, DI = 30, 32
BASE = 34
SOFT, SHARE, LAST = 38, 40, 42
LEAF = 44
"""SOFT: whether P and Q are forecasts (1 or 0), SHARE: what part of its step each may take, see `descent.hold`, LAST:
the step of the current before this one."""


@inlined
def pair(w: WorkArray, at: int) -> Pair:
    """Load two items."""
    return load(w, at), load(w, at + 1)


@inlined
def square(w: WorkArray, at: int) -> Square:
    """Load a 2x2 block."""
    return load(w, at), load(w, at + 1), load(w, at + 2), load(w, at + 3)


@inlined
def put_pair(w: WorkArray, at: int, x: Pair) -> None:
    """Store two items."""
    store(w, at, x[0])
    store(w, at + 1, x[1])


@inlined
def put_square(w: WorkArray, at: int, x: Square) -> None:
    """Store a 2x2 block."""
    store(w, at, x[0])
    store(w, at + 1, x[1])
    store(w, at + 2, x[2])
    store(w, at + 3, x[3])


@inlined
def times(x: Square, y: Square) -> Square:
    """Return x @ y."""
    return (
        x[0] * y[0] + x[1] * y[2],
        x[0] * y[1] + x[1] * y[3],
        x[2] * y[0] + x[3] * y[2],
        x[2] * y[1] + x[3] * y[3],
    )


@inlined
def transposed(x: Square) -> Square:
    """Return x.T."""
    return x[0], x[2], x[1], x[3]


@inlined
def plus(x: Square, y: Square) -> Square:
    """Return x + y."""
    return x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]


@inlined
def minus(x: Square, y: Square) -> Square:
    """Return x - y."""
    return x[0] - y[0], x[1] - y[1], x[2] - y[2], x[3] - y[3]


@inlined
def determinant(x: Square) -> float:
    """Return det x."""
    return x[0] * x[3] - x[1] * x[2]


@inlined
def on(x: Square, y: Pair) -> Pair:
    """Return x @ y for a vector."""
    return x[0] * y[0] + x[1] * y[1], x[2] * y[0] + x[3] * y[1]


@inlined
def on_transposed(x: Square, y: Pair) -> Pair:
    """Return x.T @ y for a vector."""
    return x[0] * y[0] + x[2] * y[1], x[1] * y[0] + x[3] * y[1]


@inlined
def impedance(z: FloatArray) -> Square:
    """Return the real form of r + j x."""
    return z[0], -z[1], z[1], z[0]


@inlined
def meter_message(w: WorkArray, at: int) -> tuple[Square, Square, Square, Pair, Pair]:
    """Return (A, R, L, b, eta) of the meter at the end of the leaf."""
    v, i = pair(w, at + V), pair(w, at + I)
    inverse2 = 1.0 / (v[0] * v[0] + v[1] * v[1])
    magnitude = square_root(v[0] * v[0] + v[1] * v[1])
    c = ((i[0] * v[0] - i[1] * v[1]) * inverse2, (i[0] * v[1] + i[1] * v[0]) * inverse2)
    a = (-c[0], -c[1], -c[1], c[0])
    share_p, share_q = load(w, at + SHARE), load(w, at + SHARE + 1)
    p = (load(w, at + POWER) - (v[0] * i[0] + v[1] * i[1])) * share_p
    q = (load(w, at + POWER + 1) - (v[1] * i[0] - v[0] * i[1])) * share_q
    b = ((p * v[0] + q * v[1]) * inverse2, (p * v[1] - q * v[0]) * inverse2)
    vp = load(w, at + POWER_VARIANCE) * share_p * inverse2 * inverse2
    vq = load(w, at + POWER_VARIANCE + 1) * share_q * inverse2 * inverse2
    cross = (vp - vq) * v[0] * v[1]
    r = (vp * v[0] * v[0] + vq * v[1] * v[1], cross, cross, vp * v[1] * v[1] + vq * v[0] * v[0])
    weight = load(w, at + WEIGHT)
    s, d = weight * inverse2, weight * (load(w, at + MAGNITUDE) - magnitude) / magnitude
    information = (s * v[0] * v[0], s * v[0] * v[1], s * v[0] * v[1], s * v[1] * v[1])
    return a, r, information, b, (d * v[0], d * v[1])


@inlined
def cross_leaf(
    a: Square, r: Square, information: Square, b: Pair, eta: Pair, z: FloatArray
) -> tuple[Square, Square, Square, Square, Pair, Pair]:
    """Return (M, A2, R2, L2, b2, eta2): the message on the bus side of the leaf's impedance."""
    zz = impedance(z)
    one = (1.0, 0.0, 0.0, 1.0)
    d = plus(one, times(a, zz))
    scale = 1.0 / determinant(d)
    m = (d[3] * scale, -d[1] * scale, -d[2] * scale, d[0] * scale)
    a1 = times(m, a)
    r1 = times(times(m, r), transposed(m))
    n = minus(one, times(zz, a1))
    lz = times(information, zz)
    inside = times(transposed(zz), lz)
    det = determinant(r1)
    trace = inside[0] * r1[0] + inside[1] * r1[2] + inside[2] * r1[1] + inside[3] * r1[3]
    scale = 1.0 / (1.0 + trace + det * determinant(inside))
    off = (r1[1] - det * inside[1]) * scale
    r2 = ((r1[0] + det * inside[3]) * scale, off, off, (r1[3] + det * inside[0]) * scale)
    p = times(r2, transposed(lz))
    a2 = plus(a1, times(p, n))
    l2 = times(times(transposed(n), minus(information, times(lz, p))), n)
    b1 = on(m, b)
    y = (eta[0] + lz[0] * b1[0] + lz[1] * b1[1], eta[1] + lz[2] * b1[0] + lz[3] * b1[1])
    s = on_transposed(zz, y)
    drop = on(r2, s)
    back = on_transposed(a2, s)
    return m, a2, r2, l2, (b1[0] - drop[0], b1[1] - drop[1]), (y[0] - back[0], y[1] - back[1])


@routine
def leaf_up(w: WorkArray, at: int, z: FloatArray, bus: int, phase: int, other: int) -> None:
    """Work out the leaf's message, keep what the way down needs, add the rest to the bus (see `places`)."""
    a, r, information, b, eta = meter_message(w, at)
    put_square(w, at + L, information)
    put_pair(w, at + ETA, eta)
    if z[0] != 0.0 or z[1] != 0.0:
        m, a, r, information, b, eta = cross_leaf(a, r, information, b, eta, z)
        put_square(w, at + M, m)
    put_square(w, at + A, a)
    put_square(w, at + R, r)
    put_pair(w, at + B, b)
    add_square(w, bus + BUS_A, phase, phase, a, 1.0)
    add_square(w, bus + BUS_R, phase, phase, r, 1.0)
    add_square(w, bus + BUS_L, phase, phase, information, 1.0)
    add_pair(w, bus + BUS_B + 2 * phase, b, 1.0)
    add_pair(w, bus + BUS_ETA + 2 * phase, eta, 1.0)
    if other >= 0:
        add_between(w, bus + BUS_A, phase, other, a)
        add_between(w, bus + BUS_R, phase, other, r)
        add_between(w, bus + BUS_L, phase, other, information)
        add_pair(w, bus + BUS_B + 2 * other, b, -1.0)
        add_pair(w, bus + BUS_ETA + 2 * other, eta, -1.0)


@inlined
def add_square(w: WorkArray, block: int, row: int, column: int, x: Square, sign: float) -> None:
    """Add a 2x2 block to a phase pair of a 6x6 block."""
    first = block + 12 * row + 2 * column
    store(w, first, load(w, first) + x[0] * sign)
    store(w, first + 1, load(w, first + 1) + x[1] * sign)
    store(w, first + 6, load(w, first + 6) + x[2] * sign)
    store(w, first + 7, load(w, first + 7) + x[3] * sign)


@inlined
def add_between(w: WorkArray, block: int, phase: int, other: int, x: Square) -> None:
    """Add the rest of what a block between two phases is, beside its part at the first."""
    add_square(w, block, other, other, x, 1.0)
    add_square(w, block, phase, other, x, -1.0)
    add_square(w, block, other, phase, x, -1.0)


@inlined
def add_pair(w: WorkArray, at: int, x: Pair, sign: float) -> None:
    """Add two items."""
    store(w, at, load(w, at) + x[0] * sign)
    store(w, at + 1, load(w, at + 1) + x[1] * sign)


@inlined
def between(w: WorkArray, vector: int, phase: int, other: int) -> Pair:
    """Return the part of a three-phase vector that the leaf sees."""
    x = pair(w, vector + 2 * phase)
    if other >= 0:
        y = pair(w, vector + 2 * other)
        x = (x[0] - y[0], x[1] - y[1])
    return x


@routine
def leaf_down(w: WorkArray, at: int, z: FloatArray, bus: int, phase: int, other: int) -> None:
    """Write the leaf's steps: dI = A2 dV_bus + b2 + R2 lambda, dV = dV_bus - z dI."""
    dv, force = between(w, bus + BUS_DV, phase, other), between(w, bus + BUS_LAMBDA, phase, other)
    x, y, b = on(square(w, at + A), dv), on(square(w, at + R), force), pair(w, at + B)
    di = (x[0] + y[0] + b[0], x[1] + y[1] + b[1])
    drop = on(impedance(z), di)
    put_pair(w, at + DI, di)
    put_pair(w, at + DV, (dv[0] - drop[0], dv[1] - drop[1]))


@inlined
def power_after(w: WorkArray, v: int, i: int, dv: int, di: int, step: float) -> Pair:
    """Return P and Q after a step, without the product of the two changes: see `powered_current`."""
    v_re, v_im = load(w, v), load(w, v + 1)
    i_re, i_im = load(w, i), load(w, i + 1)
    dv_re, dv_im = step * load(w, dv), step * load(w, dv + 1)
    di_re, di_im = step * load(w, di), step * load(w, di + 1)
    p = v_re * (i_re + di_re) + v_im * (i_im + di_im) + dv_re * i_re + dv_im * i_im
    q = v_im * (i_re + di_re) - v_re * (i_im + di_im) + dv_im * i_re - dv_re * i_im
    return p, q


@inlined
def powered_current(w: WorkArray, v: int, i: int, dv: int, di: int, step: float) -> Pair:
    """Return the current that draws `power_after` at V + step dV.

    A step is linear in the powers rather than in the currents: a power known well is then met at once, however far
    the step goes.
    """
    p, q = power_after(w, v, i, dv, di, step)
    re, im = load(w, v) + step * load(w, dv), load(w, v + 1) + step * load(w, dv + 1)
    inverse2 = 1.0 / (re * re + im * im)
    i_re = where_positive(step, (p * re + q * im) * inverse2, load(w, i))  # no step changes not even the last digit
    i_im = where_positive(step, (p * im - q * re) * inverse2, load(w, i + 1))
    return i_re, i_im


@inlined
def move_leaf(w: WorkArray, at: int, step: float, powered: bool) -> None:
    """Take the step, `powered` or with a linear current; leave in DI what the current differs from the linear one."""
    i = (load(w, at + I) + step * load(w, at + DI), load(w, at + I + 1) + step * load(w, at + DI + 1))
    change = (0.0, 0.0)
    if powered:
        better = powered_current(w, at + V, at + I, at + DV, at + DI, step)
        change = (better[0] - i[0], better[1] - i[1])
        i = better
    for q in range(2):
        store(w, at + V + q, load(w, at + V + q) + step * load(w, at + DV + q))
    put_pair(w, at + I, i)
    put_pair(w, at + DI, change)


@inlined
def misfits(w: WorkArray, at: int) -> tuple[float, float, float]:
    """Return reading minus model of P, Q and |V|."""
    v, i = pair(w, at + V), pair(w, at + I)
    p = load(w, at + POWER) - (v[0] * i[0] + v[1] * i[1])
    q = load(w, at + POWER + 1) - (v[1] * i[0] - v[0] * i[1])
    return p, q, load(w, at + MAGNITUDE) - square_root(v[0] * v[0] + v[1] * v[1])


@inlined
def leaf_objective(w: WorkArray, at: int) -> float:
    """Return the leaf's part of J; exact readings (variance 0) have no part."""
    p, q, u = misfits(w, at)
    total = u * u * load(w, at + WEIGHT)
    total = total + squared_over(p, load(w, at + POWER_VARIANCE))
    return total + squared_over(q, load(w, at + POWER_VARIANCE + 1))


@inlined
def leaf_violation(w: WorkArray, at: int) -> float:
    """Return by how much exact readings are missed, squared."""
    p, q, _ = misfits(w, at)
    total = where_positive(load(w, at + POWER_VARIANCE), 0.0, p * p)
    return total + where_positive(load(w, at + POWER_VARIANCE + 1), 0.0, q * q)


@inlined
def squared_over(x: float, variance: float) -> float:
    """Return x^2 / variance, 0 where the variance is 0."""
    return where_positive(variance, x * x / where_positive(variance, variance, 1.0), 0.0)
