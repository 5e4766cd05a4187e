"""The load-flow kernel: backward and forward sweeps over the reduced tree, blocks of scenarios in lanes.

One iteration, for every scenario of a block at once:

    leaves     I = conj(S(V) / V)              V = V_bus - z I at the end of the leaf
    up         J_k = sum of leaf and child currents + Y_k V_k     J_parent += T^H J_k
    root       V_0 = E - Z_source J_0
    down       V_k = T V_parent - Z_k J_k
    loops      x += K (T V_from - V_to - Z x)  K the inverse loop impedance, x injected at both ends

It stops when no load, shunt or loop is off by more than the tolerance [VA]. Method: Shirmohammadi et al., "A
compensation-based power flow method for weakly meshed distribution and transmission networks", IEEE Trans. Power
Systems 3(2), 1988, doi:10.1109/59.192932, in three phases.
"""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.powerflow.compiling import inlined, kernel
from flexmeter.powerflow.lanes import (
    LANES,
    ComplexArray,
    FloatArray,
    IntArray,
    WorkArray,
    lane,
    lanes_left,
    load,
    put_complex,
    square_root,
    store,
    take,
    where_positive,
)


@inlined
def add_product(w: WorkArray, out: int, matrix: FloatArray, vector: int, sign: float) -> None:
    """out += sign * matrix @ vector (6x6, lanes)."""
    x0, x1, x2 = load(w, vector), load(w, vector + 1), load(w, vector + 2)
    x3, x4, x5 = load(w, vector + 3), load(w, vector + 4), load(w, vector + 5)
    for i in range(6):
        total = x0 * matrix[i, 0] + x1 * matrix[i, 1] + x2 * matrix[i, 2]
        total = total + x3 * matrix[i, 3] + x4 * matrix[i, 4] + x5 * matrix[i, 5]
        store(w, out + i, load(w, out + i) + total * sign)


@inlined
def add_transposed_product(w: WorkArray, out: int, matrix: FloatArray, vector: int) -> None:
    """out += matrix.T @ vector (6x6, lanes)."""
    x0, x1, x2 = load(w, vector), load(w, vector + 1), load(w, vector + 2)
    x3, x4, x5 = load(w, vector + 3), load(w, vector + 4), load(w, vector + 5)
    for i in range(6):
        total = x0 * matrix[0, i] + x1 * matrix[1, i] + x2 * matrix[2, i]
        total = total + x3 * matrix[3, i] + x4 * matrix[4, i] + x5 * matrix[5, i]
        store(w, out + i, load(w, out + i) + total)


@inlined
def larger(a: float, b: float) -> float:
    """Return the larger of each lane; nan in either stays nan (then neither difference is positive)."""
    return where_positive(a - b, a, where_positive(b - a, b, (a + b) * 0.5))


class SweepModel(NamedTuple):
    """What the kernel knows about a network; see `tree.Tree` for the shapes.

    `load_model` (n_leaf, 7): shares Z, I, P, nominal voltage [V], lower and upper limit [pu], 1 if not plain constant
    power. `loop_from`, `loop_to` (n_loop,) spine positions; `loop_inverse` (6 n_loop, 6 n_loop) [S].
    """

    parent: IntArray
    impedance: FloatArray
    transfer: FloatArray
    has_transfer: IntArray
    shunt: FloatArray
    has_shunt: IntArray
    first_leaf: IntArray
    leaf_plus: IntArray
    leaf_minus: IntArray
    leaf_z: FloatArray
    leaf_injection: IntArray
    load_model: FloatArray
    loop_from: IntArray
    loop_to: IntArray
    loop_transfer: FloatArray
    loop_impedance: FloatArray
    loop_inverse: FloatArray
    source_impedance: FloatArray


class Work(NamedTuple):
    """Where each group of variables starts in the work array (items of lanes)."""

    v: int  # spine voltages
    j: int  # edge currents
    e: int  # source voltage
    i: int  # leaf currents the voltages follow from
    i_next: int  # leaf currents the voltages ask for
    y: int  # shunt currents, the same two
    y_next: int
    x: int  # loop currents
    dx: int
    gap: int  # voltages that loops fail to close by
    p: int  # leaf powers
    size: int


@inlined
def work_places(n: int, n_leaf: int, n_loop: int) -> Work:
    """Return the layout of the work array."""
    v, j = 0, 6 * n
    e = j + 6 * n
    i = e + 6
    i_next = i + 2 * n_leaf
    y = i_next + 2 * n_leaf
    y_next = y + 6 * n
    x = y_next + 6 * n
    dx = x + 6 * n_loop
    gap = dx + 6 * n_loop
    p = gap + 6 * n_loop
    return Work(v, j, e, i, i_next, y, y_next, x, dx, gap, p, p + 2 * n_leaf)


def work_size(m: SweepModel) -> int:
    """Return the length of the work array."""
    n, n_leaf, n_loop = len(m.parent), len(m.leaf_plus), len(m.loop_from)
    return 24 * n + 6 + 6 * n_leaf + 18 * n_loop


@inlined
def leaf_voltage(w: WorkArray, v: int, plus: int, minus: int) -> tuple[float, float]:
    """Return the voltage between the phases a leaf hangs on."""
    re, im = load(w, v + 2 * plus), load(w, v + 2 * plus + 1)
    if minus >= 0:
        re, im = re - load(w, v + 2 * minus), im - load(w, v + 2 * minus + 1)
    return re, im


@inlined
def add_leaf_current(w: WorkArray, j: int, plus: int, minus: int, re: float, im: float) -> None:
    """Add a leaf's current to the current of its bus."""
    store(w, j + 2 * plus, load(w, j + 2 * plus) + re)
    store(w, j + 2 * plus + 1, load(w, j + 2 * plus + 1) + im)
    if minus >= 0:
        store(w, j + 2 * minus, load(w, j + 2 * minus) - re)
        store(w, j + 2 * minus + 1, load(w, j + 2 * minus + 1) - im)


@inlined
def voltage_factor(model: FloatArray, v2: float) -> float:
    """Return power over power at nominal voltage of a ZIP load with limits, v2 = |V|^2 [V^2]."""
    share_z, share_i, share_p, nominal, low, high = model[0], model[1], model[2], model[3], model[4], model[5]
    u2 = v2 * (1.0 / nominal**2)
    u = square_root(u2)
    inside = u2 * share_z + u * share_i + share_p
    if low > 0.0:
        at_low = (share_z * low**2 + share_i * low + share_p) / low**2
        inside = where_positive(low - u, u2 * at_low, inside)
    at_high = (share_z * high**2 + share_i * high + share_p) / high**2
    return where_positive(u - high, u2 * at_high, inside)


@inlined
def load_currents(w: WorkArray, at: Work, m: SweepModel) -> float:
    """Write the currents that loads and shunts draw at the present voltages; return the largest mismatch^2 [VA^2]."""
    off = 0.0
    for k in range(len(m.parent)):
        v = at.v + 6 * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            re, im = leaf_voltage(w, v, m.leaf_plus[leaf], m.leaf_minus[leaf])
            r, x = m.leaf_z[leaf, 0], m.leaf_z[leaf, 1]
            i_re, i_im = load(w, at.i + 2 * leaf), load(w, at.i + 2 * leaf + 1)
            re, im = re - i_re * r + i_im * x, im - i_im * r - i_re * x
            v2 = re * re + im * im
            p, q = load(w, at.p + 2 * leaf), load(w, at.p + 2 * leaf + 1)
            if m.load_model[leaf, 6] > 0.0:
                factor = voltage_factor(m.load_model[leaf], v2)
                p, q = p * factor, q * factor
            off_p, off_q = re * i_re + im * i_im - p, im * i_re - re * i_im - q
            off = larger(off, off_p * off_p + off_q * off_q)
            store(w, at.i_next + 2 * leaf, (p * re + q * im) / v2)
            store(w, at.i_next + 2 * leaf + 1, (p * im - q * re) / v2)
        if m.has_shunt[k]:
            off = larger(off, shunt_current(w, at.y_next + 6 * k, at.y + 6 * k, m.shunt[k], v))
    return off


@inlined
def shunt_current(w: WorkArray, current: int, before: int, admittance: FloatArray, v: int) -> float:
    """Write Y V and return how much power it is off what was used before, squared [VA^2]."""
    for q in range(6):
        store(w, current + q, 0.0)
    add_product(w, current, admittance, v, 1.0)
    off = 0.0
    for q in range(3):
        re = load(w, current + 2 * q) - load(w, before + 2 * q)
        im = load(w, current + 2 * q + 1) - load(w, before + 2 * q + 1)
        v_re, v_im = load(w, v + 2 * q), load(w, v + 2 * q + 1)
        off = larger(off, (re * re + im * im) * (v_re * v_re + v_im * v_im))
    return off


@inlined
def loop_currents(w: WorkArray, at: Work, m: SweepModel) -> float:
    """Write the change of the loop currents that closes the loops; return the largest mismatch^2 [VA^2]."""
    off = 0.0
    n_loop = len(m.loop_from)
    for loop in range(n_loop):
        gap = at.gap + 6 * loop
        for q in range(6):
            store(w, gap + q, -load(w, at.v + 6 * m.loop_to[loop] + q))
        add_product(w, gap, m.loop_transfer[loop], at.v + 6 * m.loop_from[loop], 1.0)
        add_product(w, gap, m.loop_impedance[loop], at.x + 6 * loop, -1.0)
    for row in range(6 * n_loop):
        change = 0.0
        for column in range(6 * n_loop):
            change = change + load(w, at.gap + column) * m.loop_inverse[row, column]
        store(w, at.dx + row, change)
        v = load(w, at.v + 6 * m.loop_to[row // 6])
        u = load(w, at.v + 6 * m.loop_to[row // 6] + 1)
        off = larger(off, change * change * (v * v + u * u))
    return off


@inlined
def sweep(w: WorkArray, at: Work, m: SweepModel) -> None:
    """Adopt the new currents and follow them: up the tree to the source, voltages down again."""
    n, n_loop = len(m.parent), len(m.loop_from)
    for k in range(6 * n):
        value = load(w, at.y_next + k)
        store(w, at.y + k, value)
        store(w, at.j + k, value)
    for loop in range(n_loop):
        for q in range(6):
            x = load(w, at.x + 6 * loop + q) + load(w, at.dx + 6 * loop + q)
            store(w, at.x + 6 * loop + q, x)
            to = at.j + 6 * m.loop_to[loop] + q
            store(w, to, load(w, to) - x)
        add_transposed_product(w, at.j + 6 * m.loop_from[loop], m.loop_transfer[loop], at.x + 6 * loop)
    for k in range(n - 1, -1, -1):
        j = at.j + 6 * k
        for leaf in range(m.first_leaf[k], m.first_leaf[k + 1]):
            re, im = load(w, at.i_next + 2 * leaf), load(w, at.i_next + 2 * leaf + 1)
            store(w, at.i + 2 * leaf, re)
            store(w, at.i + 2 * leaf + 1, im)
            add_leaf_current(w, j, m.leaf_plus[leaf], m.leaf_minus[leaf], re, im)
        if k > 0:
            up = at.j + 6 * m.parent[k]
            if m.has_transfer[k]:
                add_transposed_product(w, up, m.transfer[k], j)
            else:
                for q in range(6):
                    store(w, up + q, load(w, up + q) + load(w, j + q))
    for q in range(6):
        store(w, at.v + q, load(w, at.e + q))
    add_product(w, at.v, m.source_impedance, at.j, -1.0)
    for k in range(1, n):
        follow_edge(w, at, m, k)


@inlined
def follow_edge(w: WorkArray, at: Work, m: SweepModel, k: int) -> None:
    """V_k = T V_parent - Z_k J_k."""
    v, up = at.v + 6 * k, at.v + 6 * m.parent[k]
    if m.has_transfer[k]:
        for q in range(6):
            store(w, v + q, 0.0)
        add_product(w, v, m.transfer[k], up, 1.0)
    else:
        for q in range(6):
            store(w, v + q, load(w, up + q))
    add_product(w, v, m.impedance[k], at.j + 6 * k, -1.0)


@inlined
def settle(off: float, start: int, count: int, iteration: int, tolerance2: float, iterations: IntArray) -> bool:
    """Note the scenarios that have converged; return whether none is left (one that is nan never will be)."""
    finished = True
    for k in range(count):
        if lane(off, k) <= tolerance2:
            if iterations[start + k] < 0:
                iterations[start + k] = iteration
        elif lane(off, k) == lane(off, k):
            finished = False
    return finished


@inlined
def write_complex(w: WorkArray, first: int, out: ComplexArray, start: int, count: int) -> None:
    """Write a group of complex work variables as rows of a result."""
    for row in range(len(out)):
        put_complex(out, row, start, count, load(w, first + 2 * row), load(w, first + 2 * row + 1))


class Powers(NamedTuple):
    """Input of every scenario: `active_w`, `reactive_var` (n_injection, n), `source_re`, `source_im` (3, n) [V]."""

    active_w: WorkArray
    reactive_var: FloatArray
    source_re: FloatArray
    source_im: FloatArray


class Flow(NamedTuple):
    """Where the solution of every scenario goes.

    `spine_v`, `spine_j` (3 n_spine, n) voltages [V] and edge currents [A]; `leaf_i` (n_leaf, n); `loop_i` (3 n_loop,
    n); `iterations` (n,) -1 where the tolerance was not reached; `mismatch_va` (n,).
    """

    spine_v: ComplexArray
    spine_j: ComplexArray
    leaf_i: ComplexArray
    loop_i: ComplexArray
    iterations: IntArray
    mismatch_va: FloatArray


@kernel
def solve_blocks(
    first_block: int,
    last_block: int,
    w: WorkArray,
    m: SweepModel,
    powers: Powers,
    tolerance_va: float,
    max_iterations: int,
    out: Flow,
) -> None:
    """Solve the scenarios of some blocks; `iterations` stays -1 where the tolerance was not reached."""
    n, n_leaf, n_scenario = len(m.parent), len(m.leaf_plus), powers.active_w.shape[1]
    at = work_places(n, n_leaf, len(m.loop_from))
    for block in range(first_block, last_block):
        start = block * LANES
        count = lanes_left(w, n_scenario - start)
        for item in range(at.size):
            store(w, item, 0.0)
        for leaf in range(n_leaf):
            row = m.leaf_injection[leaf]
            if row >= 0:
                store(w, at.p + 2 * leaf, take(w, powers.active_w, row, start, count))
                store(w, at.p + 2 * leaf + 1, take(w, powers.reactive_var, row, start, count))
        for phase in range(3):
            store(w, at.e + 2 * phase, take(w, powers.source_re, phase, start, count))
            store(w, at.e + 2 * phase + 1, take(w, powers.source_im, phase, start, count))
        sweep(w, at, m)
        for k in range(count):
            out.iterations[start + k] = -1
        off = 0.0
        for iteration in range(max_iterations + 1):
            off = larger(load_currents(w, at, m), loop_currents(w, at, m))
            if settle(off, start, count, iteration, tolerance_va**2, out.iterations) or iteration == max_iterations:
                break
            sweep(w, at, m)
        for k in range(count):
            out.mismatch_va[start + k] = lane(off, k) ** 0.5
        write_complex(w, at.v, out.spine_v, start, count)
        write_complex(w, at.j, out.spine_j, start, count)
        write_complex(w, at.i, out.leaf_i, start, count)
        write_complex(w, at.x, out.loop_i, start, count)


@kernel
def expand(
    first: int,
    last: int,
    node_spine: IntArray,
    node_edge: IntArray,
    node_x: FloatArray,
    spine_v: ComplexArray,
    edge_i: ComplexArray,
    node_v: ComplexArray,
) -> None:
    """Write the voltage of every node, in some scenarios: V = V_spine - x . J of the edge or leaf it lies on.

    `node_spine` are rows of `spine_v`, `node_edge` first rows of three in `edge_i` (-1: no drop), `node_x` (n, 3, 2).
    """
    last = min(last, node_v.shape[1])
    for node in range(len(node_spine)):
        source, edge = node_spine[node], node_edge[node]
        if edge < 0:
            for s in range(first, last):
                node_v[node, s] = spine_v[source, s]
            continue
        x0 = complex(node_x[node, 0, 0], node_x[node, 0, 1])
        x1 = complex(node_x[node, 1, 0], node_x[node, 1, 1])
        x2 = complex(node_x[node, 2, 0], node_x[node, 2, 1])
        for s in range(first, last):
            drop = x0 * edge_i[edge, s] + x1 * edge_i[edge + 1, s] + x2 * edge_i[edge + 2, s]
            node_v[node, s] = spine_v[source, s] - drop
