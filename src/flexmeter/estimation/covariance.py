"""Uncertainty in one pass from root to leaf: the covariance of every bus, edge and leaf, in O(n).

Psi is the response of (V, lambda) at a bus to a change of (eta, b) there; its voltage part is the covariance of V.
At the root Psi = diag(a (a'La)^-1 a', 0); across an edge (see `message` for M, A2, R2, L)

    F = I - Z A2    G = -Z R2    H = M' (L Z)' F    K = (I - R2 Lz) M
    Psi_c = [[F, G], [H, K']] Psi [[F, G], [H, K']]' + [[Z R2 Z', -Z K], [-K' Z', -M' Lz K]]
    Cov(J) = R2 + [A2 R2] Psi [A2 R2]'        Cov(J, V_p) = A2 Psi_VV + R2 Psi_lambdaV

Nothing is inverted. The results overwrite the factor, which is no longer needed: see the `COV_` places.
"""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.blocks import (
    BLOCK,
    add,
    apply,
    constant_multiply,
    copy,
    dot,
    identity_minus,
    multiply,
    multiply_constant,
    multiply_transposed,
    subtract,
    transposed_constant_multiply,
    transposed_multiply,
)
from flexmeter.estimation.leaf import (
    A,
    I,
    M,
    Pair,
    R,
    Square,
    V,
    between,
    impedance,
    minus,
    on,
    on_transposed,
    pair,
    plus,
    put_pair,
    put_square,
    square,
    times,
    transposed,
)
from flexmeter.estimation.places import (
    BUS_A,
    BUS_A2,
    BUS_J,
    BUS_L,
    BUS_M,
    BUS_R,
    BUS_R2,
    BUS_V,
)
from flexmeter.estimation.root import ROOT_BASIS, ROOT_INVERSE
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, IntArray, WorkArray, load, put, square_root, store, where_positive

COV_VV, COV_VL, COV_LL = BUS_A, BUS_L, BUS_R
"""Psi of the bus: voltage-voltage, voltage-lambda, lambda-lambda."""
COV_ABOVE, COV_JV, COV_JJ = BUS_M, BUS_A2, BUS_R2
"""Of the edge: covariance of T V_parent, of J with it, of J."""


class Wanted(NamedTuple):
    """Which standard deviations to write; see `estimator` for what the rows are.

    `node_spine`, `node_phase`, `node_edge` (n_node,): bus, phase, and edge (< n_spine) or n_spine + leaf the node lies
    on, -1 = none; `node_x` (n_node, 3, 2) impedances of the drop [ohm].
    """

    node_spine: IntArray
    node_phase: IntArray
    node_edge: IntArray
    node_x: FloatArray


@routine
def root_psi(w: WorkArray, root: int, out: int) -> None:
    """out = Psi_VV of the root = a (a'La)^-1 a'."""
    a = root + ROOT_BASIS
    for i in range(6):
        for j in range(6):
            total = 0.0
            for p in range(3):
                for q in range(3):
                    entry = p * (p + 1) // 2 + q if p > q else q * (q + 1) // 2 + p
                    inverse = load(w, root + ROOT_INVERSE + entry)
                    total = total + load(w, a + 6 * p + i) * inverse * load(w, a + 6 * q + j)
            store(w, out + 6 * i + j, total)


@routine
def write_nine(
    w: WorkArray, v: int, j: int, vv: int, jv: int, jj: int, scratch: int, out: FloatArray, first: int, start: int,
    count: int,
) -> None:  # fmt: skip
    """Write the covariance of (|V|, P, Q) of three phases from that of (V, J), 81 rows from `first`."""
    product = scratch + 9 * 12
    for row in range(9):
        nine_gradient(w, scratch + 12 * row, v, j, row)
    for row in range(9):
        g = scratch + 12 * row
        for k in range(6):
            total, other = 0.0, 0.0
            for m in range(6):
                total = total + load(w, vv + 6 * k + m) * load(w, g + m) + load(w, jv + 6 * m + k) * load(w, g + 6 + m)
                other = other + load(w, jv + 6 * k + m) * load(w, g + m) + load(w, jj + 6 * k + m) * load(w, g + 6 + m)
            store(w, product + k, total)
            store(w, product + 6 + k, other)
        for column in range(9):
            h = scratch + 12 * column
            value = dot(w, product, h) + dot(w, product + 6, h + 6)
            put(out, first + 9 * row + column, start, count, value)


@inlined
def nine_gradient(w: WorkArray, out: int, v: int, j: int, row: int) -> None:
    """Write the gradient of one of |V|, P, Q of phase a, b, c with respect to (V, J)."""
    for k in range(12):
        store(w, out + k, 0.0)
    phase = row % 3
    v_re, v_im = load(w, v + 2 * phase), load(w, v + 2 * phase + 1)
    j_re, j_im = load(w, j + 2 * phase), load(w, j + 2 * phase + 1)
    at = out + 2 * phase
    if row < 3:
        size = 1.0 / square_root(v_re * v_re + v_im * v_im)
        store(w, at, v_re * size)
        store(w, at + 1, v_im * size)
    elif row < 6:
        store(w, at, j_re)
        store(w, at + 1, j_im)
        store(w, at + 6, v_re)
        store(w, at + 7, v_im)
    else:
        store(w, at, -j_im)
        store(w, at + 1, j_re)
        store(w, at + 6, v_im)
        store(w, at + 7, -v_re)


@routine
def cross_covariance(
    w: WorkArray, bus: int, parent: int, z: FloatArray, transfer: FloatArray, has_transfer: int, scratch: int
) -> None:
    """Carry Psi from the parent across the bus's edge and write all `COV_` places of the bus."""
    vv, vl, ll, f, g = scratch, scratch + BLOCK, scratch + 2 * BLOCK, scratch + 3 * BLOCK, scratch + 4 * BLOCK
    h, k, lz = scratch + 5 * BLOCK, scratch + 6 * BLOCK, scratch + 7 * BLOCK
    one, two = scratch + 8 * BLOCK, scratch + 9 * BLOCK
    m, a2, r2, information = bus + BUS_M, bus + BUS_A2, bus + BUS_R2, bus + BUS_L
    if has_transfer:
        turn(w, vv, transfer, parent + COV_VV, one)
        turn(w, vl, transfer, parent + COV_VL, one)
        turn(w, ll, transfer, parent + COV_LL, one)
    else:
        copy(w, vv, parent + COV_VV, BLOCK)
        copy(w, vl, parent + COV_VL, BLOCK)
        copy(w, ll, parent + COV_LL, BLOCK)
    constant_multiply(w, f, z, a2)
    identity_minus(w, f)
    constant_multiply(w, g, z, r2)
    for n in range(BLOCK):
        store(w, g + n, -load(w, g + n))
    multiply_constant(w, one, information, z)
    transposed_constant_multiply(w, lz, z, one)
    transposed_multiply(w, two, one, f)
    transposed_multiply(w, h, m, two)
    multiply(w, one, r2, lz)
    identity_minus(w, one)
    multiply(w, k, one, m)
    current_covariance(w, a2, r2, vv, vl, ll, one, two, scratch + 10 * BLOCK)
    # bus: M' Lz K first, while M is still there
    multiply(w, one, lz, k)
    transposed_multiply(w, two, m, one)
    product_of_psi(w, bus + COV_LL, h, k, vv, vl, ll, h, k, one, scratch + 10 * BLOCK, lz)
    subtract(w, bus + COV_LL, two, BLOCK)
    copy(w, bus + COV_ABOVE, vv, BLOCK)
    # rows F, G
    multiply(w, one, f, vv)
    multiply_transposed(w, two, g, vl)
    add(w, one, two, BLOCK)
    multiply(w, lz, f, vl)
    multiply(w, two, g, ll)
    add(w, lz, two, BLOCK)
    multiply_transposed(w, bus + COV_VV, one, f)
    multiply_transposed(w, two, lz, g)
    add(w, bus + COV_VV, two, BLOCK)
    # Z R2 Z' = -G Z'
    for i in range(6):
        for j in range(6):
            total = load(w, bus + COV_VV + 6 * i + j)
            for n in range(6):
                total = total - load(w, g + 6 * i + n) * z[j, n]
            store(w, bus + COV_VV + 6 * i + j, total)
    multiply_transposed(w, bus + COV_VL, one, h)
    multiply(w, two, lz, k)
    add(w, bus + COV_VL, two, BLOCK)
    constant_multiply(w, two, z, k)
    subtract(w, bus + COV_VL, two, BLOCK)


@routine
def turn(w: WorkArray, out: int, transfer: FloatArray, block: int, scratch: int) -> None:
    """out = T block T'."""
    constant_multiply(w, scratch, transfer, block)
    for i in range(6):
        for j in range(6):
            total = 0.0
            for n in range(6):
                total = total + load(w, scratch + 6 * i + n) * transfer[j, n]
            store(w, out + 6 * i + j, total)


@routine
def product_of_psi(
    w: WorkArray, out: int, h: int, k: int, vv: int, vl: int, ll: int, h2: int, k2: int, one: int, two: int, three: int
) -> None:
    """out = [H K'] Psi [H K']'."""
    multiply(w, one, h, vv)
    transposed_by_transposed(w, two, k, vl)
    add(w, one, two, BLOCK)
    multiply(w, three, h, vl)
    transposed_multiply(w, two, k, ll)
    add(w, three, two, BLOCK)
    multiply_transposed(w, out, one, h2)
    multiply(w, two, three, k2)
    add(w, out, two, BLOCK)


@routine
def transposed_by_transposed(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left.T @ right.T."""
    for i in range(6):
        for j in range(6):
            total = 0.0
            for n in range(6):
                total = total + load(w, left + 6 * n + i) * load(w, right + 6 * j + n)
            store(w, out + 6 * i + j, total)


@routine
def current_covariance(w: WorkArray, a: int, r: int, vv: int, vl: int, ll: int, one: int, two: int, three: int) -> None:
    """For J | V ~ N(A V, R): replace A by Cov(J, V) and R by Cov(J)."""
    multiply(w, one, a, vv)
    multiply_transposed(w, two, r, vl)
    add(w, one, two, BLOCK)
    multiply(w, two, a, vl)
    multiply(w, three, r, ll)
    add(w, two, three, BLOCK)
    multiply_transposed(w, three, one, a)
    copy(w, a, one, BLOCK)
    multiply(w, one, two, r)
    add(w, r, three, BLOCK)
    add(w, r, one, BLOCK)


LEAF_CURRENT, LEAF_WITH_BUS = M, M + 4
"""After `leaf_covariance`: Cov(I) (2x2) and Cov(I, V_bus) (2x6) of a leaf."""


@routine
def leaf_covariance(w: WorkArray, at: int, bus: int, phase: int, other: int) -> None:
    """Replace the leaf's message by Cov(I) and Cov(I, V_bus)."""
    a, r = square(w, at + A), square(w, at + R)
    psi_vl = part(w, bus + COV_VL, phase, other)
    half_v = plus(times(a, part(w, bus + COV_VV, phase, other)), times(r, transposed(psi_vl)))
    half_l = plus(times(a, psi_vl), times(r, part(w, bus + COV_LL, phase, other)))
    put_square(w, at + LEAF_CURRENT, plus(r, plus(times(half_v, transposed(a)), times(half_l, r))))
    for k in range(6):
        row = bus + COV_VL + 6 * k
        v = between(w, bus + COV_VV + 6 * k, phase, other)  # Psi_VV is symmetric: row k is column k
        force = between(w, row, phase, other)
        x, y = on(a, v), on(r, force)
        store(w, at + LEAF_WITH_BUS + k, x[0] + y[0])
        store(w, at + LEAF_WITH_BUS + 6 + k, x[1] + y[1])


@inlined
def part(w: WorkArray, block: int, phase: int, other: int) -> Square:
    """Return what a leaf between two phases (or one and neutral) sees of a 6x6 block."""
    x = cell(w, block, phase, phase)
    if other >= 0:
        x = plus(x, cell(w, block, other, other))
        x = minus(x, plus(cell(w, block, phase, other), cell(w, block, other, phase)))
    return x


@inlined
def cell(w: WorkArray, block: int, row: int, column: int) -> Square:
    """Load a 2x2 part of a 6x6 block."""
    at = block + 12 * row + 2 * column
    return load(w, at), load(w, at + 1), load(w, at + 6), load(w, at + 7)


@inlined
def quadratic(x: Pair, block: Square, y: Pair) -> float:
    """Return x' block y."""
    z = on(block, y)
    return x[0] * z[0] + x[1] * z[1]


@inlined
def root_of(variance: float) -> float:
    """Return the standard deviation; rounding below zero counts as zero, nan stays."""
    return square_root(where_positive(-variance, 0.0, variance))


@routine
def leaf_sigmas(w: WorkArray, at: int, bus: int, z: FloatArray, phase: int, other: int) -> tuple[float, float, float]:
    """Return the standard deviations of P, Q and |V| at the end of the leaf."""
    v, i = pair(w, at + V), pair(w, at + I)
    zz = impedance(z)
    cov_i = square(w, at + LEAF_CURRENT)
    first, second = between(w, at + LEAF_WITH_BUS, phase, other), between(w, at + LEAF_WITH_BUS + 6, phase, other)
    with_bus = (first[0], first[1], second[0], second[1])
    with_end = minus(with_bus, times(cov_i, transposed(zz)))
    cov_bus = part(w, bus + COV_VV, phase, other)
    cov_end = minus(minus(cov_bus, times(zz, with_bus)), times(transposed(with_end), transposed(zz)))
    p_v, p_i = i, v
    q_v, q_i = (-i[1], i[0]), (v[1], -v[0])
    var_p = quadratic(p_v, cov_end, p_v) + quadratic(p_i, cov_i, p_i) + quadratic(p_i, with_end, p_v) * 2.0
    var_q = quadratic(q_v, cov_end, q_v) + quadratic(q_i, cov_i, q_i) + quadratic(q_i, with_end, q_v) * 2.0
    var_v = quadratic(v, cov_end, v) / (v[0] * v[0] + v[1] * v[1])
    return root_of(var_p), root_of(var_q), root_of(var_v)


@routine
def spine_node_sigma(w: WorkArray, bus: int, phase: int) -> float:
    """Return the standard deviation of |V| of a phase of a spine bus."""
    v = pair(w, bus + BUS_V + 2 * phase)
    variance = quadratic(v, cell(w, bus + COV_VV, phase, phase), v) / (v[0] * v[0] + v[1] * v[1])
    return root_of(variance)


@routine
def leaf_node_sigma(w: WorkArray, at: int, bus: int, phase: int, x: FloatArray) -> float:
    """Return the standard deviation of |V_phase - x I| on the way to the end of a leaf."""
    drop = on(impedance(x), pair(w, at + I))
    v = pair(w, bus + BUS_V + 2 * phase)
    v = (v[0] - drop[0], v[1] - drop[1])
    y = on_transposed(impedance(x), v)
    first, second = pair(w, at + LEAF_WITH_BUS + 2 * phase), pair(w, at + LEAF_WITH_BUS + 6 + 2 * phase)
    variance = quadratic(v, cell(w, bus + COV_VV, phase, phase), v) + quadratic(y, square(w, at + LEAF_CURRENT), y)
    variance = variance - quadratic(y, (first[0], first[1], second[0], second[1]), v) * 2.0
    return root_of(variance / (v[0] * v[0] + v[1] * v[1]))


@routine
def edge_node_sigma(w: WorkArray, bus: int, above: int, phase: int, x: FloatArray, scratch: int) -> float:
    """Return the standard deviation of |V_above,phase - x . J| of a bus on an edge; x (3, 2) [ohm]."""
    v = pair(w, above + BUS_V + 2 * phase)
    for q in range(3):
        drop = on(impedance(x[q]), pair(w, bus + BUS_J + 2 * q))
        v = (v[0] - drop[0], v[1] - drop[1])
    for q in range(3):
        put_pair(w, scratch + 2 * q, on_transposed(impedance(x[q]), v))
    apply(w, scratch + 6, bus + COV_JJ, scratch)
    variance = quadratic(v, cell(w, bus + COV_ABOVE, phase, phase), v) + dot(w, scratch, scratch + 6)
    for k in range(6):
        c = pair(w, bus + COV_JV + 6 * k + 2 * phase)
        variance = variance - (c[0] * v[0] + c[1] * v[1]) * load(w, scratch + k) * 2.0
    return root_of(variance / (v[0] * v[0] + v[1] * v[1]))
