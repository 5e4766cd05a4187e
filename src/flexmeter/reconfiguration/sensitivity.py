"""Gradient of the losses of a radial state with respect to every bus power, by the adjoint of the two sweeps."""

from __future__ import annotations

import numpy as np

from flexmeter.errors import DidNotConverge, NotRadial
from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.sweep import MAX_SWEEPS, Flow, Tree, flat, forward, new_flow, new_tree, plant, sweep


def loss_gradient(network: FeederNetwork, closed: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Derivatives of the losses by the active and reactive power of every bus, two (n,) [W/W, W/var].

    With I = conj(S / V) + Y V and V = V0 - Z I the losses are L = Re(I^H R I), R and Z the path matrices. The adjoint
    l = 2 R I + Z^H (B conj(l)) - Z^H conj(Y) l with B = conj(S) / conj(V)^2 gives dL/dP = Re(l / V) and
    dL/dQ = -Im(l / V). Every product with R or Z is one pair of sweeps. At a substation both are 0.

    Raises
    ------
    NotRadial, DidNotConverge
        The state has no losses to differentiate.
    """
    n = network.bus_count
    tree, flow = new_tree(n), new_flow(n)
    p, q = network.s_pu
    if plant(network.feeder, closed, tree) != n:
        raise NotRadial(f"{network.name}: a gradient needs a radial state that feeds every bus")
    flat(network.feeder, flow)
    if sweep(tree, n, p, q, flow) < 0:
        raise DidNotConverge(f"{network.name}: load flow", MAX_SWEEPS, float("nan"), "a state to be compared")
    adjoint = np.zeros((2, n))
    if not solve_adjoint(tree, p, q, flow, adjoint):
        raise DidNotConverge(f"{network.name}: adjoint", MAX_SWEEPS, float("nan"), "a state to be compared")
    ratio = (adjoint[0] + 1j * adjoint[1]) / (flow.v_re + 1j * flow.v_im)
    return np.ascontiguousarray(ratio.real), np.ascontiguousarray(-ratio.imag)


@kernel
def solve_adjoint(tree: Tree, p: FloatArray, q: FloatArray, flow: Flow, adjoint: FloatArray) -> bool:
    """Fill `adjoint` (2, n) with the real and imaginary part of l; return whether its fixed point was reached."""
    n = p.size
    work = new_flow(n)
    source = np.empty((2, n))
    # 2 R I: a sweep of the load currents with resistances only. The flow's own J already adds them up.
    for k in range(n):
        i = tree.order[k]
        up = tree.parent[i]
        if up < 0:
            source[0, i] = source[1, i] = 0.0
        else:
            source[0, i] = tree.turns[i] * source[0, up] + 2.0 * tree.r[i] * flow.j_re[i]
            source[1, i] = tree.turns[i] * source[1, up] + 2.0 * tree.r[i] * flow.j_im[i]
    for i in range(n):
        adjoint[0, i] = source[0, i]
        adjoint[1, i] = source[1, i]
    for _ in range(200):
        for i in range(n):
            a, c = flow.v_re[i], flow.v_im[i]
            d = a * a + c * c
            # B = conj(S) / conj(V)^2 = conj(S) V^2 / |V|^4; conj(B conj(l)) = conj(B) l.
            b_re = (p[i] * (a * a - c * c) + 2.0 * q[i] * a * c) / (d * d)
            b_im = (2.0 * p[i] * a * c - q[i] * (a * a - c * c)) / (d * d)
            w_re = b_re * adjoint[0, i] + b_im * adjoint[1, i] - tree.g[i] * adjoint[0, i] - tree.b[i] * adjoint[1, i]
            w_im = b_im * adjoint[0, i] - b_re * adjoint[1, i] - tree.g[i] * adjoint[1, i] + tree.b[i] * adjoint[0, i]
            # Z^H w = conj(Z conj(w)), and `forward` returns -Z times its injections from rest.
            work.j_re[i] = w_re
            work.j_im[i] = -w_im
            work.v_re[i] = 0.0
            work.v_im[i] = 0.0
        forward(tree, n, work)
        moved = 0.0
        for i in range(n):
            new_re = source[0, i] - work.v_re[i]
            new_im = source[1, i] + work.v_im[i]
            moved += (new_re - adjoint[0, i]) ** 2 + (new_im - adjoint[1, i]) ** 2
            adjoint[0, i] = new_re
            adjoint[1, i] = new_im
        if moved < 1e-22:
            return True
    return False
