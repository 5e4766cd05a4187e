"""What the level above knows, carried down into an area without counting anything twice.

The area told the level above z_msg with covariance S; the level above answers z_up with S_up. With z the area's own
head summary now (it may have moved because angles were handed down), every state x of the area moves by

    x += Cov(x, z) y        y = S^-1 (z_up - z) + S^-1 S_up S^-1 (z - z_msg)
    Cov(x) -= Cov(x, z) W Cov(z, x)        W = S^-1 - S^-1 S_up S^-1

which is the Rauch-Tung-Striebel smoother on nine quantities. Cov(x, z) y is the answer of the tree to the forces
H_V' y on V_0 and H_J' y on J_0 (H the gradient of z): one more pass down, nothing is estimated again.
"""

from __future__ import annotations

from flexmeter.estimation.aggregate import invert_known
from flexmeter.estimation.blocks import BLOCK, copy
from flexmeter.estimation.covariance import current_covariance, nine_gradient
from flexmeter.estimation.places import BUS_A, BUS_DJ, BUS_DV, BUS_J, BUS_LAMBDA, BUS_R, BUS_V
from flexmeter.powerflow.compiling import inlined, kernel, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, square_root, store, take

UP, MESSAGE, PRECISION, ANSWER = 0, 9, 18, 99
ABOVE = 180
"""Rows of what comes from above: z_up, z_msg, S^-1, S^-1 S_up S^-1."""
GRADIENT, Y, X_V = 0, 108, 117
CORRECTION = 117 + 54
"""Items in the work array: gradient of z (9 x 12), y, X_V = Cov(V_0, z) (6 x 9)."""


@kernel
def condition_answer(
    up: FloatArray,
    up_covariance: FloatArray,
    message: FloatArray,
    message_covariance: FloatArray,
    work: FloatArray,
    out: FloatArray,
) -> None:
    """Turn (9, n_scenario) values and (9, 9, n_scenario) covariances into the rows the kernel reads; nan = unknown.

    work (3, 9, 10).
    """
    precision, half = work[0], work[1]
    for s in range(up.shape[1]):
        for i in range(9):
            known = is_answered(up, message, message_covariance, i, s)
            out[UP + i, s] = up[i, s] if known else 0.0
            out[MESSAGE + i, s] = message[i, s] if known else 0.0
            for j in range(9):
                both = known and is_answered(up, message, message_covariance, j, s)
                precision[i, j] = message_covariance[i, j, s] if both else 0.0
        invert_known(precision, 9)
        for i in range(9):
            for j in range(9):
                total = 0.0
                for k in range(9):
                    if precision[i, k] != 0.0 and is_answered(up, message, message_covariance, j, s):
                        total += precision[i, k] * up_covariance[k, j, s]
                half[i, j] = total
        for i in range(9):
            for j in range(9):
                total = 0.0
                for k in range(9):
                    total += half[i, k] * precision[k, j]
                out[PRECISION + 9 * i + j, s] = precision[i, j]
                out[ANSWER + 9 * i + j, s] = total


@inlined
def is_answered(up: FloatArray, message: FloatArray, covariance: FloatArray, i: int, s: int) -> bool:
    """Whether a quantity was reported and answered, and is not known exactly anyway."""
    off = (up[i, s] - up[i, s]) + (message[i, s] - message[i, s])  # nan unless finite
    return bool(off == 0.0 and covariance[i, i, s] > 0.0)


@inlined
def head_value(w: WorkArray, bus: int, row: int) -> float:
    """Return |V|, P or Q of a phase at the root."""
    phase = row % 3
    v_re, v_im = load(w, bus + BUS_V + 2 * phase), load(w, bus + BUS_V + 2 * phase + 1)
    j_re, j_im = load(w, bus + BUS_J + 2 * phase), load(w, bus + BUS_J + 2 * phase + 1)
    if row < 3:
        return square_root(v_re * v_re + v_im * v_im)
    if row < 6:
        return v_re * j_re + v_im * j_im
    return v_im * j_re - v_re * j_im


@routine
def correct_root(w: WorkArray, bus: int, at: int, scratch: int, above: FloatArray, start: int, count: int) -> None:
    """Write the root's step towards the answer from above, and what the covariance pass needs, to `at`.

    Psi of the root lies at `scratch`.
    """
    psi, scratch = scratch, scratch + BLOCK
    for row in range(9):
        nine_gradient(w, at + GRADIENT + 12 * row, bus + BUS_V, bus + BUS_J, row)
        store(w, scratch + row, head_value(w, bus, row))
    for row in range(9):
        total = 0.0
        for column in range(9):
            z = load(w, scratch + column)
            gap = take(w, above, UP + column, start, count) - z
            moved = z - take(w, above, MESSAGE + column, start, count)
            total = total + take(w, above, PRECISION + 9 * row + column, start, count) * gap
            total = total + take(w, above, ANSWER + 9 * row + column, start, count) * moved
        store(w, at + Y + row, total)
    for row in range(9):  # X_V = Psi (H_V' + A0' H_J')
        g = at + GRADIENT + 12 * row
        for i in range(6):
            total = load(w, g + i)
            for k in range(6):
                total = total + load(w, bus + BUS_A + 6 * k + i) * load(w, g + 6 + k)
            store(w, scratch + 12 + i, total)
        for i in range(6):
            total = 0.0
            for k in range(6):
                total = total + load(w, psi + 6 * i + k) * load(w, scratch + 12 + k)
            store(w, at + X_V + 9 * i + row, total)
    for i in range(6):
        step, force = 0.0, 0.0
        for row in range(9):
            step = step + load(w, at + X_V + 9 * i + row) * load(w, at + Y + row)
            force = force + load(w, at + GRADIENT + 12 * row + 6 + i) * load(w, at + Y + row)
        store(w, bus + BUS_DV + i, step)
        store(w, bus + BUS_LAMBDA + i, force)
    for i in range(6):
        total = 0.0
        for k in range(6):
            total = total + load(w, bus + BUS_A + 6 * i + k) * load(w, bus + BUS_DV + k)
            total = total + load(w, bus + BUS_R + 6 * i + k) * load(w, bus + BUS_LAMBDA + k)
        store(w, bus + BUS_DJ + i, total)


@routine
def corrected_psi(w: WorkArray, at: int, vv: int, vl: int, ll: int, above: FloatArray, start: int, count: int) -> None:
    """Take X W X' off the root's Psi."""
    for i in range(12):
        for j in range(12):
            if i >= 6 and j < 6:
                continue
            total = 0.0
            for row in range(9):
                left = response(w, at, i, row)
                for column in range(9):
                    k = 9 * row + column
                    weight = take(w, above, PRECISION + k, start, count) - take(w, above, ANSWER + k, start, count)
                    total = total + left * weight * response(w, at, j, column)
            target = vv + 6 * i + j
            if i >= 6:
                target = ll + 6 * (i - 6) + j - 6
            elif j >= 6:
                target = vl + 6 * i + j - 6
            store(w, target, load(w, target) - total)


@inlined
def response(w: WorkArray, at: int, i: int, row: int) -> float:
    """Return an entry of X: voltages from X_V, forces from H_J'."""
    if i < 6:
        return load(w, at + X_V + 9 * i + row)
    return load(w, at + GRADIENT + 12 * row + i)


@routine
def head_joint(w: WorkArray, bus: int, vv: int, vl: int, ll: int, a: int, r: int, scratch: int) -> None:
    """Write Cov(J0, V0) to a and Cov(J0) to r from the root's Psi; the root's message stays."""
    copy(w, a, bus + BUS_A, BLOCK)
    copy(w, r, bus + BUS_R, BLOCK)
    current_covariance(w, a, r, vv, vl, ll, scratch, scratch + BLOCK, scratch + 2 * BLOCK)
