"""Three-phase messages: a subtree seen from a bus voltage, carried across an edge, and the way back.

A subtree seen from its bus voltage V is  J | V ~ N(A V + b, R)  together with information (L, eta) on V (cost
1/2 V'L V - eta'V). Messages of everything at a bus add (Kirchhoff). Across a series impedance, V_c = V_p - Z J:

    M  = (I + A Z)^-1        A1 = M A              N = I - Z A1         C = M chol(R)
    G  = chol(I + (Z C)' L (Z C))                  W = C G'^-1          Y = (L Z W)' N
    R2 = W W'                A2 = A1 + W Y         L2 = N' L N - Y' Y
    b1 = M b    y = eta + L Z b1    s = Z' y       b2 = b1 - R2 s       eta2 = y - A2' s

and back, with lambda the force (multiplier) on J:

    J = A2 dV_p + b2 + R2 lambda_p      dV = dV_p - Z J      lambda = M' (lambda_p + Z' (L dV - eta))

A transformer puts T in front: V_p becomes T V_p, J_p = T' J. Only I + A Z and G are inverted: R = 0 (no
load below), L = 0 (no voltmeter below) and Z = 0 are ordinary. Derivation: docs/methods/estimation.md.
"""

from __future__ import annotations

from flexmeter.estimation.blocks import (
    BLOCK,
    add,
    add_identity,
    apply,
    apply_constant,
    apply_transposed,
    apply_transposed_constant,
    cholesky,
    constant_multiply,
    divide_by_lower_transposed,
    identity_minus,
    invert,
    multiply,
    multiply_constant,
    multiply_lower,
    subtract,
    symmetric_multiply_transposed,
    symmetric_transposed_multiply,
    transposed_constant_multiply,
    transposed_multiply,
)
from flexmeter.estimation.places import (
    BUS_A,
    BUS_A2,
    BUS_B,
    BUS_B2,
    BUS_DJ,
    BUS_DV,
    BUS_ETA,
    BUS_L,
    BUS_LAMBDA,
    BUS_M,
    BUS_R,
    BUS_R2,
    BUS_SHUNT,
    BUS_V,
)
from flexmeter.powerflow.compiling import routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, store


@routine
def cross(w: WorkArray, bus: int, z: FloatArray, scratch: int) -> None:
    """Carry the bus's message across its edge: writes M, A2, R2, B2; L2 and eta2 go to the first scratch items."""
    l2, eta2 = scratch, scratch + BLOCK
    a1, n, c, zc = scratch + 2 * BLOCK, scratch + 3 * BLOCK, scratch + 4 * BLOCK, scratch + 5 * BLOCK
    lzc, inside, y, half = scratch + 6 * BLOCK, scratch + 7 * BLOCK, scratch + 8 * BLOCK, scratch + 9 * BLOCK
    a, r, information = bus + BUS_A, bus + BUS_R, bus + BUS_L
    m, a2, r2 = bus + BUS_M, bus + BUS_A2, bus + BUS_R2
    multiply_constant(w, m, a, z)
    add_identity(w, m)
    invert(w, m)
    multiply(w, a1, m, a)
    constant_multiply(w, n, z, a1)
    identity_minus(w, n)
    cholesky(w, half, r)
    multiply_lower(w, c, m, half)
    constant_multiply(w, zc, z, c)
    multiply(w, lzc, information, zc)
    symmetric_transposed_multiply(w, inside, zc, lzc)
    add_identity(w, inside)
    cholesky(w, inside, inside)
    divide_by_lower_transposed(w, c, c, inside)
    divide_by_lower_transposed(w, lzc, lzc, inside)
    symmetric_multiply_transposed(w, r2, c, c)
    transposed_multiply(w, y, lzc, n)
    multiply(w, a2, c, y)
    add(w, a2, a1, BLOCK)
    multiply(w, half, information, n)
    symmetric_transposed_multiply(w, l2, n, half)
    symmetric_transposed_multiply(w, half, y, y)
    subtract(w, l2, half, BLOCK)
    b1, drop, pull, s = zc, zc + 6, zc + 12, zc + 18
    apply(w, b1, m, bus + BUS_B)
    apply_constant(w, drop, z, b1)
    apply(w, pull, information, drop)
    add(w, pull, bus + BUS_ETA, 6)
    apply_transposed_constant(w, s, z, pull)
    apply(w, bus + BUS_B2, r2, s)
    apply_transposed(w, eta2, a2, s)
    for k in range(6):
        store(w, bus + BUS_B2 + k, load(w, b1 + k) - load(w, bus + BUS_B2 + k))
        store(w, eta2 + k, load(w, pull + k) - load(w, eta2 + k))


@routine
def hand_up(w: WorkArray, bus: int, parent: int, scratch: int, transfer: FloatArray, has_transfer: int) -> None:
    """Add the crossed message (A2, R2, B2 and scratch) to the parent, through the transformer if there is one."""
    a2, r2, b2, l2, eta2 = bus + BUS_A2, bus + BUS_R2, bus + BUS_B2, scratch, scratch + BLOCK
    if has_transfer:
        half, turned = scratch + 2 * BLOCK, scratch + 3 * BLOCK
        for source, place in ((a2, BUS_A), (r2, BUS_R), (l2, BUS_L)):
            multiply_constant(w, half, source, transfer)
            transposed_constant_multiply(w, turned, transfer, half)
            add(w, parent + place, turned, BLOCK)
        apply_transposed_constant(w, half, transfer, b2)
        add(w, parent + BUS_B, half, 6)
        apply_transposed_constant(w, half, transfer, eta2)
        add(w, parent + BUS_ETA, half, 6)
    else:
        add(w, parent + BUS_A, a2, BLOCK)
        add(w, parent + BUS_R, r2, BLOCK)
        add(w, parent + BUS_L, l2, BLOCK)
        add(w, parent + BUS_B, b2, 6)
        add(w, parent + BUS_ETA, eta2, 6)


@routine
def step_down(w: WorkArray, bus: int, dv: int, force: int, z: FloatArray, scratch: int) -> None:
    """Write the bus's steps dV, dJ and its lambda, from T dV_parent (dv) and T lambda_parent (force)."""
    drop, pull = scratch + 12, scratch + 18
    apply(w, bus + BUS_DJ, bus + BUS_A2, dv)
    apply(w, drop, bus + BUS_R2, force)
    add(w, bus + BUS_DJ, drop, 6)
    add(w, bus + BUS_DJ, bus + BUS_B2, 6)
    apply_constant(w, drop, z, bus + BUS_DJ)
    for k in range(6):
        store(w, bus + BUS_DV + k, load(w, dv + k) - load(w, drop + k))
    apply(w, pull, bus + BUS_L, bus + BUS_DV)
    for k in range(6):
        store(w, pull + k, load(w, pull + k) - load(w, bus + BUS_ETA + k))
    apply_transposed_constant(w, pull, z, pull)
    add(w, pull, force, 6)
    apply_transposed(w, bus + BUS_LAMBDA, bus + BUS_M, pull)


@routine
def add_shunt(w: WorkArray, bus: int, admittance: FloatArray, scratch: int) -> None:
    """Add a shunt to the bus's message: A += Y, b += Y V - its present current."""
    for i in range(6):
        for j in range(6):
            at = bus + BUS_A + 6 * i + j
            store(w, at, load(w, at) + admittance[i, j])
    apply_constant(w, scratch, admittance, bus + BUS_V)
    for k in range(6):
        at = bus + BUS_B + k
        store(w, at, load(w, at) + load(w, scratch + k) - load(w, bus + BUS_SHUNT + k))


@routine
def step_shunt(w: WorkArray, bus: int, admittance: FloatArray, step: float, scratch: int) -> None:
    """Move the shunt's current towards Y (V + dV) by a step; call before V moves."""
    for k in range(6):
        store(w, scratch + k, load(w, bus + BUS_V + k) + load(w, bus + BUS_DV + k))
    apply_constant(w, scratch, admittance, scratch)
    for k in range(6):
        at = bus + BUS_SHUNT + k
        store(w, at, load(w, at) + step * (load(w, scratch + k) - load(w, at)))
