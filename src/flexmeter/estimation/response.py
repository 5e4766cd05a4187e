"""How the whole state answers to forces: the factorised tree as a linear map, apart from the iteration's own steps.

A force on a quantity q = h_V V + h_J J of an edge moves the state x by Cov(x, q): with it at the top of its bus,

    b += R h_J    eta += A' h_J + h_V    on the way down the force below it is lambda + h_J

and the passes are those of `message` without a residual. What pushes on the state: quantities, and currents
and forces at tied buses. One answer gives a column of the covariance matrix of everything; cost: two passes of vectors.
"""

from __future__ import annotations

from flexmeter.estimation.blocks import (
    add,
    apply,
    apply_constant,
    apply_transposed,
    apply_transposed_constant,
    clear,
    copy,
    dot,
)
from flexmeter.estimation.covariance import root_psi
from flexmeter.estimation.flow import FLOW, H_J, H_V, INVERSE, G, H
from flexmeter.estimation.leaf import LEAF, I, Pair, R, V, between, impedance, on, on_transposed, pair, square
from flexmeter.estimation.leaf import A as LEAF_A
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import (
    BUS,
    BUS_A,
    BUS_A2,
    BUS_J,
    BUS_L,
    BUS_M,
    BUS_R,
    BUS_R2,
    BUS_V,
    PUSH_J,
    PUSH_V,
    RESPONSE,
    RESPONSE_B,
    RESPONSE_B2,
    RESPONSE_DJ,
    RESPONSE_DV,
    RESPONSE_ETA,
    RESPONSE_FORCE,
    SOURCE_B,
    WIDE_PSI,
)
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, square_root, store


@inlined
def psi_of_root(w: WorkArray, at: Places, m: EstimatorModel, out: int) -> None:
    """out = Psi_VV of the root."""
    if m.phasors:
        copy(w, out, at.wide + WIDE_PSI, 36)
    else:
        root_psi(w, at.root, out)


@routine
def clear_sources(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Take away everything that pushes."""
    for k in range(len(m.parent)):
        clear(w, at.response + RESPONSE * k + SOURCE_B, 24)
    clear(w, at.leaf_push, 2 * len(m.leaf_plus))


@inlined
def add_pair_at(w: WorkArray, at: int, x: Pair, sign: float) -> None:
    """Add two items."""
    store(w, at, load(w, at) + x[0] * sign)
    store(w, at + 1, load(w, at + 1) + x[1] * sign)


@routine
def push_flow(w: WorkArray, at: Places, flow: int, k: int) -> None:
    """Push on what a meter on the edge into bus k reads."""
    here = at.response + RESPONSE * k
    add(w, here + PUSH_V, at.flow + FLOW * flow + H_V, 6)
    add(w, here + PUSH_J, at.flow + FLOW * flow + H_J, 6)


@inlined
def leaf_gradient(w: WorkArray, here: int, part: int, z: FloatArray) -> tuple[Pair, Pair]:
    """Return the gradient of P, Q or |V| (part 0, 1, 2) of a leaf with respect to its bus's voltage and its current."""
    v, i = pair(w, here + V), pair(w, here + I)
    zero = 0.0
    on_v, on_i = i, v
    if part == 1:
        on_v, on_i = (zero - i[1], i[0]), (v[1], zero - v[0])
    elif part == 2:
        size = 1.0 / square_root(v[0] * v[0] + v[1] * v[1])
        on_v, on_i = (v[0] * size, v[1] * size), (zero, zero)
    drop = on_transposed(impedance(z), on_v)
    return on_v, (on_i[0] - drop[0], on_i[1] - drop[1])


@routine
def push_leaf(w: WorkArray, at: Places, m: EstimatorModel, leaf: int, k: int, part: int) -> None:
    """Push on P, Q or |V| of a leaf of bus k."""
    on_v, on_i = leaf_gradient(w, at.leaf + LEAF * leaf, part, m.leaf_z[leaf])
    push_on_leaf(w, at, m, leaf, k, on_v, on_i)


@inlined
def push_on_leaf(w: WorkArray, at: Places, m: EstimatorModel, leaf: int, k: int, on_v: Pair, on_i: Pair) -> None:
    """Push on the voltage of bus k between a leaf's phases, and on the leaf's current."""
    here, source = at.leaf + LEAF * leaf, at.response + RESPONSE * k + SOURCE_B
    b = on(square(w, here + R), on_i)
    eta = on_transposed(square(w, here + LEAF_A), on_i)
    eta = (eta[0] + on_v[0], eta[1] + on_v[1])
    plus, minus = m.leaf_plus[leaf], m.leaf_minus[leaf]
    add_pair_at(w, source + 2 * plus, b, 1.0)
    add_pair_at(w, source + 6 + 2 * plus, eta, 1.0)
    if minus >= 0:
        add_pair_at(w, source + 2 * minus, b, -1.0)
        add_pair_at(w, source + 6 + 2 * minus, eta, -1.0)
    add_pair_at(w, at.leaf_push + 2 * leaf, on_i, 1.0)


@routine
def push_losses(w: WorkArray, at: Places, m: EstimatorModel) -> None:
    """Push on the power lost: J' Z J of edges and leaves, V' Y V of shunts."""
    one = at.scratch
    for k in range(len(m.parent)):
        bus, here = at.bus + BUS * k, at.response + RESPONSE * k
        apply_constant(w, one, m.impedance[k], bus + BUS_J)
        add(w, here + PUSH_J, one, 6)
        apply_transposed_constant(w, one, m.impedance[k], bus + BUS_J)
        add(w, here + PUSH_J, one, 6)
        if m.has_shunt[k]:
            apply_constant(w, one, m.shunt[k], bus + BUS_V)
            add(w, here + PUSH_V, one, 6)
            apply_transposed_constant(w, one, m.shunt[k], bus + BUS_V)
            add(w, here + PUSH_V, one, 6)
        zero = 0.0
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            i = pair(w, at.leaf + LEAF * leaf + I)
            r = 2.0 * m.leaf_z[leaf, 0]
            push_on_leaf(w, at, m, leaf, k, (zero, zero), (i[0] * r, i[1] * r))


@routine
def answer(w: WorkArray, at: Places, m: EstimatorModel, on_path_only: bool) -> None:
    """Work out the steps of all buses (or of those above tied ones only) that the sources ask for."""
    n = len(m.parent)
    for k in range(n):
        here = at.response + RESPONSE * k
        copy(w, here + RESPONSE_B, here + SOURCE_B, 12)
    for k in range(n - 1, -1, -1):
        if not on_path_only or m.ties.on_path[k]:
            collect(w, at, m, k)
    root, here = at.bus, at.response
    psi_of_root(w, at, m, at.scratch)
    apply(w, here + RESPONSE_DV, at.scratch, here + RESPONSE_ETA)
    apply(w, here + RESPONSE_DJ, root + BUS_A, here + RESPONSE_DV)
    add(w, here + RESPONSE_DJ, here + RESPONSE_B, 6)
    copy(w, here + RESPONSE_FORCE, here + PUSH_J, 6)
    forces_below_meters(w, at, m, 0)
    for k in range(1, n):
        if not on_path_only or m.ties.on_path[k]:
            follow_answer(w, at, m, k)


@inlined
def collect(w: WorkArray, at: Places, m: EstimatorModel, k: int) -> None:
    """Carry what pushes below bus k across its meters and its edge to the parent."""
    bus, here = at.bus + BUS * k, at.response + RESPONSE * k
    b, eta = here + RESPONSE_B, here + RESPONSE_ETA
    for flow in range(m.first_flow[k], m.first_flow[k + 1]):
        meter = at.flow + FLOW * flow
        rho = -dot(w, meter + H_J, b)
        store(w, at.meter_push + flow, rho)
        rho = rho * load(w, meter + INVERSE)
        for q in range(6):
            store(w, b + q, load(w, b + q) + load(w, meter + G + q) * rho)
            store(w, eta + q, load(w, eta + q) + load(w, meter + H + q) * rho)
    one = at.scratch
    apply(w, one, bus + BUS_R, here + PUSH_J)
    add(w, b, one, 6)
    apply_transposed(w, one, bus + BUS_A, here + PUSH_J)
    add(w, eta, one, 6)
    add(w, eta, here + PUSH_V, 6)
    if k == 0:
        return
    b1, y, s = at.scratch, at.scratch + 6, at.scratch + 12
    apply(w, b1, bus + BUS_M, b)
    apply_constant(w, s, m.impedance[k], b1)
    apply(w, y, bus + BUS_L, s)
    add(w, y, eta, 6)
    apply_transposed_constant(w, s, m.impedance[k], y)
    b2 = here + RESPONSE_B2
    apply(w, b2, bus + BUS_R2, s)
    two = at.scratch + 18
    apply_transposed(w, two, bus + BUS_A2, s)
    for q in range(6):
        store(w, b2 + q, load(w, b1 + q) - load(w, b2 + q))
        store(w, two + q, load(w, y + q) - load(w, two + q))
    up = at.response + RESPONSE * m.parent[k]
    if m.has_transfer[k]:
        apply_transposed_constant(w, one, m.transfer[k], b2)
        add(w, up + RESPONSE_B, one, 6)
        apply_transposed_constant(w, one, m.transfer[k], two)
        add(w, up + RESPONSE_ETA, one, 6)
    else:
        add(w, up + RESPONSE_B, b2, 6)
        add(w, up + RESPONSE_ETA, two, 6)


@inlined
def follow_answer(w: WorkArray, at: Places, m: EstimatorModel, k: int) -> None:
    """Write the answer of bus k from that of its parent."""
    bus, here, up = at.bus + BUS * k, at.response + RESPONSE * k, at.response + RESPONSE * m.parent[k]
    dv, force, one, two = at.scratch, at.scratch + 6, at.scratch + 12, at.scratch + 18
    if m.has_transfer[k]:
        apply_constant(w, dv, m.transfer[k], up + RESPONSE_DV)
        apply_constant(w, force, m.transfer[k], up + RESPONSE_FORCE)
    else:
        copy(w, dv, up + RESPONSE_DV, 6)
        copy(w, force, up + RESPONSE_FORCE, 6)
    apply(w, here + RESPONSE_DJ, bus + BUS_A2, dv)
    apply(w, one, bus + BUS_R2, force)
    add(w, here + RESPONSE_DJ, one, 6)
    add(w, here + RESPONSE_DJ, here + RESPONSE_B2, 6)
    apply_constant(w, one, m.impedance[k], here + RESPONSE_DJ)
    for q in range(6):
        store(w, here + RESPONSE_DV + q, load(w, dv + q) - load(w, one + q))
    apply(w, one, bus + BUS_L, here + RESPONSE_DV)
    for q in range(6):
        store(w, one + q, load(w, one + q) - load(w, here + RESPONSE_ETA + q))
    apply_transposed_constant(w, two, m.impedance[k], one)
    add(w, two, force, 6)
    apply_transposed(w, here + RESPONSE_FORCE, bus + BUS_M, two)
    add(w, here + RESPONSE_FORCE, here + PUSH_J, 6)
    forces_below_meters(w, at, m, k)


@inlined
def forces_below_meters(w: WorkArray, at: Places, m: EstimatorModel, k: int) -> None:
    """Turn the force above the meters of bus k's edge into the one below them."""
    here = at.response + RESPONSE * k
    force = here + RESPONSE_FORCE
    for flow in range(m.first_flow[k + 1] - 1, m.first_flow[k] - 1, -1):
        meter = at.flow + FLOW * flow
        mu = load(w, at.meter_push + flow) - dot(w, meter + G, force) - dot(w, meter + H, here + RESPONSE_DV)
        mu = mu * load(w, meter + INVERSE)
        for q in range(6):
            store(w, force + q, load(w, force + q) + load(w, meter + H_J + q) * mu)


@routine
def read_flow(w: WorkArray, at: Places, flow: int, k: int) -> float:
    """Return the answer of what a meter on the edge into bus k reads."""
    meter, here = at.flow + FLOW * flow, at.response + RESPONSE * k
    return dot(w, meter + H_V, here + RESPONSE_DV) + dot(w, meter + H_J, here + RESPONSE_DJ)


@inlined
def leaf_answer(w: WorkArray, at: Places, m: EstimatorModel, leaf: int, k: int) -> tuple[Pair, Pair]:
    """Return the answer of the voltage of bus k between a leaf's phases, and of the leaf's current."""
    here, bus = at.leaf + LEAF * leaf, at.response + RESPONSE * k
    dv = between(w, bus + RESPONSE_DV, m.leaf_plus[leaf], m.leaf_minus[leaf])
    force = between(w, bus + RESPONSE_FORCE, m.leaf_plus[leaf], m.leaf_minus[leaf])
    own = pair(w, at.leaf_push + 2 * leaf)
    x = on(square(w, here + LEAF_A), dv)
    y = on(square(w, here + R), (force[0] + own[0], force[1] + own[1]))
    return dv, (x[0] + y[0], x[1] + y[1])


@routine
def read_leaf(w: WorkArray, at: Places, m: EstimatorModel, leaf: int, k: int, part: int) -> float:
    """Return the answer of P, Q or |V| of a leaf of bus k."""
    on_v, on_i = leaf_gradient(w, at.leaf + LEAF * leaf, part, m.leaf_z[leaf])
    dv, di = leaf_answer(w, at, m, leaf, k)
    return on_v[0] * dv[0] + on_v[1] * dv[1] + on_i[0] * di[0] + on_i[1] * di[1]


@routine
def read_losses(w: WorkArray, at: Places, m: EstimatorModel) -> float:
    """Return the answer of the losses."""
    total, one = 0.0, at.scratch
    for k in range(len(m.parent)):
        bus, here = at.bus + BUS * k, at.response + RESPONSE * k
        for matrix, state, change in (
            (m.impedance, BUS_J, RESPONSE_DJ),
            (m.shunt, BUS_V, RESPONSE_DV),
        ):
            apply_constant(w, one, matrix[k], bus + state)
            total = total + dot(w, one, here + change)
            apply_transposed_constant(w, one, matrix[k], bus + state)
            total = total + dot(w, one, here + change)
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            i = pair(w, at.leaf + LEAF * leaf + I)
            _, di = leaf_answer(w, at, m, leaf, k)
            total = total + (i[0] * di[0] + i[1] * di[1]) * (2.0 * m.leaf_z[leaf, 0])
    return total
