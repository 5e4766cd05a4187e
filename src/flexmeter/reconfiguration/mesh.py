"""Meshed load flow: a tree plus loop currents that close the open ends through a small dense system."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, ComplexArray, Feeder, FloatArray, IntArray
from flexmeter.reconfiguration.sweep import (
    MAX_SWEEPS,
    TOLERANCE,
    Flow,
    Tree,
    flat,
    forward,
    new_flow,
    new_tree,
    plant,
)

# A loop without impedance has no defined current; this much (pu of 1 MVA) shares it evenly between its branches.
SMALLEST_R = 1e-9


class Mesh(NamedTuple):
    """A meshed state: `fed` buses supplied (-1: not converged) by a spanning forest and `ties` that close its loops.

    `current` (l,) flows in the ties from from-bus to to-bus, as at the to-bus; `z` (l,) is their impedance [pu].
    """

    fed: int
    tree: Tree
    flow: Flow
    ties: IntArray
    current: ComplexArray
    z: ComplexArray


@kernel
def split(feeder: Feeder, closed: BoolArray) -> tuple[BoolArray, IntArray]:
    """Divide closed branches into a spanning forest and the ties that close its loops."""
    n, m = feeder.slack.size, closed.size
    tree_branch = np.zeros(m, np.bool_)
    seen = feeder.slack.copy()
    order = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        if feeder.slack[i]:
            order[count] = i
            count += 1
    head = 0
    while head < count:
        i = order[head]
        head += 1
        for e in range(feeder.ptr[i], feeder.ptr[i + 1]):
            j = feeder.neighbour[e]
            if closed[feeder.via[e]] and not seen[j]:
                seen[j] = True
                tree_branch[feeder.via[e]] = True
                order[count] = j
                count += 1
    ties = np.empty(m, np.int64)
    found = 0
    for branch in range(m):
        if closed[branch] and not tree_branch[branch] and seen[feeder.from_bus[branch]]:
            ties[found] = branch
            found += 1
    return tree_branch, ties[:found]


@kernel
def _gaps(feeder: Feeder, ties: IntArray, flow: Flow) -> ComplexArray:
    """Voltage across the open end of every tie."""
    gap = np.empty(ties.size, np.complex128)
    for k in range(ties.size):
        start, end, ratio = feeder.from_bus[ties[k]], feeder.to_bus[ties[k]], feeder.ratio[ties[k]]
        gap[k] = complex(
            flow.v_re[start] / ratio - flow.v_re[end],
            flow.v_im[start] / ratio - flow.v_im[end],
        )
    return gap


@kernel
def _inject(feeder: Feeder, tie: int, current: complex, flow: Flow) -> None:
    """Draw the current of a tie at its from-bus and return it at its to-bus."""
    start, end, ratio = feeder.from_bus[tie], feeder.to_bus[tie], feeder.ratio[tie]
    flow.j_re[start] += current.real / ratio
    flow.j_im[start] += current.imag / ratio
    flow.j_re[end] -= current.real
    flow.j_im[end] -= current.imag


def mesh_flow(feeder: Feeder, closed: BoolArray, p: FloatArray, q: FloatArray, resistive: bool) -> Mesh:
    """Solve the load flow with loops.

    With `resistive` the reactances are zero and the load currents those at nominal voltage: the currents then are
    the flow pattern of least losses, which is not the alternating-current one.
    """
    mesh = prepare(feeder, closed, resistive)
    converged = solve(feeder, mesh, loop_factor(feeder, mesh), p, q, resistive)
    return mesh if converged else mesh._replace(fed=-1)


def mesh_losses(feeder: Feeder, closed: BoolArray, p: FloatArray, q: FloatArray) -> FloatArray:
    """Losses [pu] of one meshed state under (t, n) load cases; infinite where not converged."""
    mesh = prepare(feeder, closed, False)
    factor = loop_factor(feeder, mesh)
    out = np.full(len(p), np.inf)
    for case in range(len(p)):
        if solve(feeder, mesh, factor, p[case], q[case], False):
            out[case] = (feeder.r * np.abs(branch_currents(feeder, mesh)) ** 2).sum()
    return out


def loop_factor(feeder: Feeder, mesh: Mesh) -> ComplexArray:
    """Inverse of the loop impedance matrix, (l, l) [pu]."""
    if not mesh.ties.size:
        return np.zeros((0, 0), dtype=np.complex128)
    return np.ascontiguousarray(np.linalg.inv(loop_impedance(feeder, mesh)))


@kernel
def loop_impedance(feeder: Feeder, mesh: Mesh) -> ComplexArray:
    """Impedance matrix of the loops that the ties close, (l, l) [pu], one pair of sweeps per column."""
    n, loops = feeder.slack.size, mesh.ties.size
    z = np.zeros((loops, loops), np.complex128)
    flow = new_flow(n)
    for k in range(loops):
        for i in range(n):
            flow.v_re[i] = flow.v_im[i] = flow.j_re[i] = flow.j_im[i] = 0.0
        _inject(feeder, mesh.ties[k], 1.0 + 0.0j, flow)
        forward(mesh.tree, mesh.fed, flow)
        gap = _gaps(feeder, mesh.ties, flow)
        for other in range(loops):
            z[other, k] = -gap[other]
        z[k, k] += mesh.z[k]
    return z


@kernel
def prepare(feeder: Feeder, closed: BoolArray, resistive: bool) -> Mesh:
    """Choose tree and ties of a state, at rest."""
    n = feeder.slack.size
    tree_branch, ties = split(feeder, closed)
    tree = new_tree(n)
    fed = plant(feeder, tree_branch, tree)
    current = np.zeros(ties.size, np.complex128)
    z = np.empty(ties.size, np.complex128)
    for k in range(ties.size):
        tie = ties[k]
        half = 0.5 * feeder.charging[tie]
        tree.b[feeder.from_bus[tie]] += half / feeder.ratio[tie] ** 2
        tree.b[feeder.to_bus[tie]] += half
        z[k] = complex(max(feeder.r[tie], SMALLEST_R), 0.0 if resistive else feeder.x[tie])
    for i in range(n):
        tree.r[i] = max(tree.r[i], SMALLEST_R)
        if resistive:
            tree.x[i] = 0.0
    flow = new_flow(n)
    flat(feeder, flow)
    return Mesh(fed, tree, flow, ties, current, z)


@kernel
def solve(feeder: Feeder, mesh: Mesh, factor: ComplexArray, p: FloatArray, q: FloatArray, resistive: bool) -> bool:
    """Iterate from the mesh's present voltages and loop currents; return whether the fixed point was reached."""
    for _ in range(MAX_SWEEPS):
        moved = _load_step(feeder, mesh, p, q, resistive) + _loop_step(feeder, mesh, factor)
        if moved < TOLERANCE * TOLERANCE:
            return True
        if not moved < 1e6:
            break
    flat(feeder, mesh.flow)
    for k in range(mesh.ties.size):
        mesh.current[k] = 0.0
    return False


@kernel
def _load_step(feeder: Feeder, mesh: Mesh, p: FloatArray, q: FloatArray, resistive: bool) -> float:
    """Set load currents and sweep; return the sum of squared voltage changes."""
    tree, flow = mesh.tree, mesh.flow
    for k in range(mesh.fed):
        i = tree.order[k]
        a, c = flow.v_re[i], flow.v_im[i]
        if resistive:
            a, c = 1.0, 0.0
        scale = 1.0 / (a * a + c * c)
        flow.j_re[i] = (p[i] * a + q[i] * c) * scale + tree.g[i] * a - tree.b[i] * c
        flow.j_im[i] = (p[i] * c - q[i] * a) * scale + tree.g[i] * c + tree.b[i] * a
    for k in range(mesh.ties.size):
        _inject(feeder, mesh.ties[k], mesh.current[k], flow)
    return forward(tree, mesh.fed, flow)


@kernel
def _loop_step(feeder: Feeder, mesh: Mesh, factor: ComplexArray) -> float:
    """Correct the loop currents by the voltage left across the ties; return the sum of its squares."""
    gap = _gaps(feeder, mesh.ties, mesh.flow)
    left = 0.0
    for k in range(gap.size):
        gap[k] -= mesh.z[k] * mesh.current[k]
        left += gap[k].real ** 2 + gap[k].imag ** 2
    for k in range(gap.size):
        for other in range(gap.size):
            mesh.current[k] += factor[k, other] * gap[other]
    return left


@kernel
def branch_currents(feeder: Feeder, mesh: Mesh) -> ComplexArray:
    """Current of every branch [pu], from from-bus to to-bus, as it flows at the to-bus; zero where open."""
    tree, flow = mesh.tree, mesh.flow
    out = np.zeros(feeder.from_bus.size, np.complex128)
    for k in range(mesh.fed):
        i = tree.order[k]
        if tree.parent[i] < 0:
            continue
        branch = tree.branch[i]
        value = complex(flow.j_re[i], flow.j_im[i])
        out[branch] = value if feeder.to_bus[branch] == i else -value * feeder.ratio[branch]
    for k in range(mesh.ties.size):
        out[mesh.ties[k]] = mesh.current[k]
    return out
