"""The joint covariance of chosen quantities anywhere in the network, and the standard deviation of the losses.

Cov(q_i, q_j) is the answer of q_j to a unit force on q_i, see `response`: two passes of vectors per quantity. What the
level above answered takes X W X' off, X what the quantities have to do with the head's nine (`correction`).
"""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.border import closed_answer, read_head
from flexmeter.estimation.correction import ANSWER, PRECISION
from flexmeter.estimation.covariance import root_of
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.response import (
    clear_sources,
    push_flow,
    push_leaf,
    push_losses,
    read_flow,
    read_leaf,
    read_losses,
)
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, IntArray, WorkArray, load, put, store, take


class Joint(NamedTuple):
    """Which quantities, and where their joint covariance goes.

    `bus` (n,) spine row; `flow` (n,) row of the meter on its edge, or -1; `leaf`, `part` (n,) the leaf and 0, 1, 2 for
    P, Q, |V|; `covariance` (n * n, n_scenario); `losses` (1, n_scenario) standard deviation of the losses, or no rows.
    """

    bus: IntArray
    flow: IntArray
    leaf: IntArray
    part: IntArray
    covariance: FloatArray
    losses: FloatArray


@routine
def write_joint(
    w: WorkArray, at: Places, m: EstimatorModel, joint: Joint, above: FloatArray, start: int, count: int
) -> None:
    """Write what is asked for, from the last factor."""
    n = len(joint.bus)
    for i in range(n):
        clear_sources(w, at, m)
        if joint.flow[i] >= 0:
            push_flow(w, at, joint.flow[i], joint.bus[i])
        else:
            push_leaf(w, at, m, joint.leaf[i], joint.bus[i], joint.part[i])
        closed_answer(w, at, m)
        note_touch(w, at, i, above)
        for j in range(n):
            if joint.flow[j] >= 0:
                value = read_flow(w, at, joint.flow[j], joint.bus[j])
            else:
                value = read_leaf(w, at, m, joint.leaf[j], joint.bus[j], joint.part[j])
            put(joint.covariance, n * i + j, start, count, value)
    for i in range(n):
        for j in range(n):
            value = take(w, joint.covariance, n * i + j, start, count) - told_above(w, at, i, j, above, start, count)
            put(joint.covariance, n * i + j, start, count, value)
    if len(joint.losses) > 0:
        clear_sources(w, at, m)
        push_losses(w, at, m)
        closed_answer(w, at, m)
        note_touch(w, at, n, above)
        variance = read_losses(w, at, m) - told_above(w, at, n, n, above, start, count)
        put(joint.losses, 0, start, count, root_of(variance))


@inlined
def note_touch(w: WorkArray, at: Places, i: int, above: FloatArray) -> None:
    """Keep what quantity i has to do with the head's nine."""
    if len(above) > 0:
        for row in range(9):
            store(w, at.touch + 9 * i + row, read_head(w, at, row))


@inlined
def told_above(w: WorkArray, at: Places, i: int, j: int, above: FloatArray, start: int, count: int) -> float:
    """Return the covariance of two quantities that the answer from above takes away."""
    total = 0.0
    if len(above) > 0:
        for row in range(9):
            for column in range(9):
                k = 9 * row + column
                weight = take(w, above, PRECISION + k, start, count) - take(w, above, ANSWER + k, start, count)
                total = total + load(w, at.touch + 9 * i + row) * weight * load(w, at.touch + 9 * j + column)
    return total
