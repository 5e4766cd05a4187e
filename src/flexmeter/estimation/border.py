"""Closed loops: pairs of buses tied to one voltage, by a border around the factorised tree.

A tie t between buses p and q adds two unknowns, its current x (drawn at p, injected at q) and the force nu that keeps
V_p - V_q = 0. Both act on the tree like any other current and force; with the answers of the tree to unit x and nu,

    [ gap(nu)    gap(x)   ] [ nu ]     [ gap    ]        gap = V_p - V_q
    [ force(nu)  force(x) ] [ x  ] = - [ force  ]        force = lambda_p - lambda_q

makes both vanish: the gap, and the gradient with respect to the free current. The matrix S is symmetric with a positive
and a negative semidefinite diagonal block (quasidefinite: R. Vanderbei, doi:10.1137/0805005), so pivots of pairs
(nu, x) never cancel. All covariances follow by Psi - U S^-1 U', U the answers of a bus to unit nu and x.

Loops without impedance (two closed switches in parallel) have no current of their own: their pair is left out.
"""

from __future__ import annotations

from flexmeter.estimation.aggregate import AGGREGATE, aggregate_down
from flexmeter.estimation.blocks import add, apply_constant, apply_transposed_constant, copy, dot
from flexmeter.estimation.correction import ANSWER, GRADIENT, PRECISION
from flexmeter.estimation.covariance import COV_ABOVE, COV_JJ, COV_JV, COV_LL, COV_VL, COV_VV
from flexmeter.estimation.leaf import LEAF, leaf_down
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import (
    BUS,
    BUS_DJ,
    BUS_DV,
    BUS_J,
    BUS_LAMBDA,
    BUS_V,
    COLUMN,
    COLUMN_FORCE,
    COLUMN_J,
    COLUMN_V,
    PUSH_J,
    PUSH_V,
    RESPONSE,
    RESPONSE_DJ,
    RESPONSE_DV,
    RESPONSE_FORCE,
    SOURCE_B,
    SOURCE_ETA,
)
from flexmeter.estimation.response import answer, clear_sources
from flexmeter.estimation.start import settle_voltages
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, splat, store, take, where_positive

SMALLEST_OHM2 = 1e-18
"""Pairs of ties whose loop has less than a nano-ohm, squared, are left out."""


@inlined
def strands(m: EstimatorModel) -> int:
    """Return the number of real tie currents."""
    return 2 * len(m.ties.one)


@inlined
def tie_value(w: WorkArray, m: EstimatorModel, strand: int, base: int, stride: int, place: int) -> float:
    """Return what a vector of the buses differs by between the two ends of a strand."""
    tie, item = strand // 2, place + 2 * m.ties.phase[strand // 2] + strand % 2
    return load(w, base + stride * m.ties.one[tie] + item) - load(w, base + stride * m.ties.other[tie] + item)


@inlined
def push_tie(w: WorkArray, at: Places, m: EstimatorModel, strand: int, place: int, size: float) -> None:
    """Let a tie's current (place `SOURCE_B`) or force (`SOURCE_ETA`) act on both ends."""
    tie, item = strand // 2, place + 2 * m.ties.phase[strand // 2] + strand % 2
    one, other = at.response + RESPONSE * m.ties.one[tie] + item, at.response + RESPONSE * m.ties.other[tie] + item
    store(w, one, load(w, one) + size)
    store(w, other, load(w, other) - size)


@inlined
def unit_source(w: WorkArray, at: Places, m: EstimatorModel, column: int) -> None:
    """Let a unit force (even columns) or a unit current (odd ones) act."""
    clear_sources(w, at, m)
    push_tie(w, at, m, column // 2, SOURCE_ETA if column % 2 == 0 else SOURCE_B, splat(w, 1.0))


@routine
def factor_border(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Write the inverse of S from the present factor of the tree, columns and rows ordered nu_0, x_0, nu_1, ..."""
    size = 2 * strands(m)
    for column in range(size):
        unit_source(w, at, m, column)
        answer(w, at, m, True)
        for strand in range(size // 2):
            row = at.border + size * 2 * strand + column
            store(w, row, tie_value(w, m, strand, at.response, RESPONSE, RESPONSE_DV))
            store(w, row + size, tie_value(w, m, strand, at.response, RESPONSE, RESPONSE_FORCE))
    for strand in range(size // 2):
        eliminate_pair(w, at.border, size, 2 * strand)


@inlined
def eliminate_pair(w: WorkArray, s: int, size: int, k: int) -> None:
    """Take a pair of unknowns through the inversion in place."""
    a, b = load(w, s + size * k + k), load(w, s + size * k + k + 1)
    c, d = load(w, s + size * (k + 1) + k), load(w, s + size * (k + 1) + k + 1)
    determinant = b * c - a * d
    scale = where_positive(determinant - SMALLEST_OHM2, -1.0 / determinant, 0.0)
    a, b, c, d = d * scale, -b * scale, -c * scale, a * scale
    for i in range(size):
        if i // 2 != k // 2:
            at = s + size * i + k
            left, right = load(w, at), load(w, at + 1)
            left, right = left * a + right * c, left * b + right * d
            for j in range(size):
                if j // 2 != k // 2:
                    here = s + size * i + j
                    change = left * load(w, s + size * k + j) + right * load(w, s + size * (k + 1) + j)
                    store(w, here, load(w, here) - change)
            store(w, at, -left)
            store(w, at + 1, -right)
    for j in range(size):
        if j // 2 != k // 2:
            upper, lower = s + size * k + j, s + size * (k + 1) + j
            one, two = load(w, upper), load(w, lower)
            store(w, upper, a * one + b * two)
            store(w, lower, c * one + d * two)
    store(w, s + size * k + k, a)
    store(w, s + size * k + k + 1, b)
    store(w, s + size * (k + 1) + k, c)
    store(w, s + size * (k + 1) + k + 1, d)


@inlined
def push_solution(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Let the currents and forces act that take the gaps and forces of the right-hand side away."""
    size = 2 * strands(m)
    right = at.border + size * size
    for row in range(size):
        total = 0.0
        for column in range(size):
            total = total - load(w, at.border + size * row + column) * load(w, right + column)
        push_tie(w, at, m, row // 2, SOURCE_ETA if row % 2 == 0 else SOURCE_B, total)


@routine
def close_ties(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Change the steps of the open tree so that they close every tie: the factor of the border is there already."""
    size = 2 * strands(m)
    right = at.border + size * size
    for strand in range(size // 2):
        gap = tie_value(w, m, strand, at.bus, BUS, BUS_V) + tie_value(w, m, strand, at.bus, BUS, BUS_DV)
        store(w, right + 2 * strand, gap)
        store(w, right + 2 * strand + 1, tie_value(w, m, strand, at.bus, BUS, BUS_LAMBDA))
    clear_sources(w, at, m)
    push_solution(w, at, m)
    answer(w, at, m, False)
    for k in range(len(m.parent)):
        bus, here = at.bus + BUS * k, at.response + RESPONSE * k
        add(w, bus + BUS_DV, here + RESPONSE_DV, 6)
        add(w, bus + BUS_DJ, here + RESPONSE_DJ, 6)
        add(w, bus + BUS_LAMBDA, here + RESPONSE_FORCE, 6)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            leaf_down(w, at.leaf + LEAF * leaf, m.leaf_z[leaf], bus, m.leaf_plus[leaf], m.leaf_minus[leaf])
    for k in range(len(m.aggregate_bus)):
        aggregate_down(w, at.aggregate + AGGREGATE * k, at.bus + BUS * m.aggregate_bus[k], at.scratch)


@routine
def closed_answer(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Work out the answer to the sources with all ties closed."""
    answer(w, at, m, False)
    size = 2 * strands(m)
    right = at.border + size * size
    for strand in range(size // 2):
        store(w, right + 2 * strand, tie_value(w, m, strand, at.response, RESPONSE, RESPONSE_DV))
        store(w, right + 2 * strand + 1, tie_value(w, m, strand, at.response, RESPONSE, RESPONSE_FORCE))
    if size > 0:
        push_solution(w, at, m)
        answer(w, at, m, False)


@routine
def start_ties(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Close all ties with the loads' currents held, so that every later point has no gap."""
    clear_sources(w, at, m)
    for row in range(strands(m)):
        total = 0.0
        for column in range(strands(m)):
            total = total + tie_value(w, m, column, at.bus, BUS, BUS_V) * m.ties.inverse[row, column]
        push_tie(w, at, m, row, SOURCE_B, total)
    for k in range(len(m.parent) - 1, -1, -1):
        current = at.response + RESPONSE * k + SOURCE_B
        add(w, at.bus + BUS * k + BUS_J, current, 6)
        if k > 0:
            up = at.response + RESPONSE * m.parent[k] + SOURCE_B
            if m.has_transfer[k]:
                apply_transposed_constant(w, at.scratch, m.transfer[k], current)
                add(w, up, at.scratch, 6)
            else:
                add(w, up, current, 6)
    settle_voltages(w, at, m)


@inlined
def push_head(w: WorkArray, at: Places, row: int) -> None:
    """Push on one of the nine quantities at the head."""
    gradient = at.correction + GRADIENT + 12 * row
    add(w, at.response + PUSH_V, gradient, 6)
    add(w, at.response + PUSH_J, gradient + 6, 6)


@inlined
def read_head(w: WorkArray, at: Places, row: int) -> float:
    """Return the answer of one of the nine quantities at the head."""
    gradient = at.correction + GRADIENT + 12 * row
    return dot(w, gradient, at.response + RESPONSE_DV) + dot(w, gradient + 6, at.response + RESPONSE_DJ)


@routine
def store_columns(w: WorkArray, at: Places, m: EstimatorModel, corrected: bool) -> None:
    """Keep the answers of all buses to unit forces and currents of the ties, and to the head's quantities."""
    size = 2 * strands(m)
    for column in range(size + (9 if corrected else 0)):
        if column < size:
            unit_source(w, at, m, column)
            answer(w, at, m, False)
        else:
            clear_sources(w, at, m)
            push_head(w, at, column - size)
            closed_answer(w, at, m)
        first = at.column + COLUMN * len(m.parent) * column
        for k in range(len(m.parent)):
            here, out = at.response + RESPONSE * k, first + COLUMN * k
            copy(w, out + COLUMN_V, here + RESPONSE_DV, 6)
            copy(w, out + COLUMN_J, here + RESPONSE_DJ, 6)
            copy(w, out + COLUMN_FORCE, here + RESPONSE_FORCE, 6)


@routine
def amend(w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int) -> None:
    """Turn the covariances of the open tree at all buses and edges into those with the ties closed."""
    n, size = len(m.parent), 2 * strands(m)
    left, right = at.scratch, at.scratch + 24
    for k in range(n):
        bus = at.bus + BUS * k
        for column in range(size + (9 if len(above) > 0 else 0)):
            load_column(w, at, m, k, column, left)
            for q in range(24):
                store(w, right + q, 0.0)
            for other in range(size + (9 if len(above) > 0 else 0)):
                weight = 0.0
                if column < size and other < size:
                    weight = load(w, at.border + size * column + other)
                elif column >= size and other >= size:
                    row = 9 * (column - size) + other - size
                    weight = take(w, above, PRECISION + row, start, count) - take(w, above, ANSWER + row, start, count)
                else:
                    continue
                load_column(w, at, m, k, other, at.scratch + 48)
                for q in range(24):
                    store(w, right + q, load(w, right + q) + weight * load(w, at.scratch + 48 + q))
            take_off(w, bus + COV_VV, left, right)
            take_off(w, bus + COV_VL, left, right + 12)
            take_off(w, bus + COV_LL, left + 12, right + 12)
            if k > 0:
                take_off(w, bus + COV_ABOVE, left + 18, right + 18)
                take_off(w, bus + COV_JV, left + 6, right + 18)
                take_off(w, bus + COV_JJ, left + 6, right + 6)
            else:
                take_off(w, at.head_joint, left + 6, right)
                take_off(w, at.head_joint + 36, left + 6, right + 6)


@inlined
def load_column(w: WorkArray, at: Places, m: EstimatorModel, k: int, column: int, out: int) -> None:
    """Copy a stored answer at bus k: V, J, force, and T V of the parent."""
    first = at.column + COLUMN * len(m.parent) * column
    copy(w, out, first + COLUMN * k, COLUMN)
    if k > 0:
        parent = first + COLUMN * m.parent[k] + COLUMN_V
        if m.has_transfer[k]:
            apply_constant(w, out + 18, m.transfer[k], parent)
        else:
            copy(w, out + 18, parent, 6)


@inlined
def take_off(w: WorkArray, block: int, left: int, right: int) -> None:
    """block -= left right'."""
    for i in range(6):
        x = load(w, left + i)
        for j in range(6):
            store(w, block + 6 * i + j, load(w, block + 6 * i + j) - x * load(w, right + j))
