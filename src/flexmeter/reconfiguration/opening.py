"""Sequential opening: from the closed network open the branch with the smallest current, again and again."""

from __future__ import annotations

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.mesh import SMALLEST_R, split
from flexmeter.reconfiguration.network import BoolArray, ComplexArray, Feeder, FeederNetwork, FloatArray
from flexmeter.reconfiguration.score import loop_of
from flexmeter.reconfiguration.sweep import new_tree, plant


def sequential_opening(network: FeederNetwork) -> BoolArray:
    """Radial state after opening the least loaded branch of the least-loss flow one at a time, (m,).

    Load currents are those at nominal voltage. With the loop incidence matrix A, the diagonal of resistances R and
    the currents J of any tree, the flow of least losses is J + A c with c = -(A' R A)^-1 A' R J; opening branch b
    adds the condition (J + A c)_b = 0, which updates the inverse by one rank. After Shirmohammadi and Hong 1989
    (doi 10.1109/61.25637), with resistances instead of impedances.
    """
    closed = network.closable.copy()
    incidence, tree_current = loop_incidence(network.feeder, closed, *network.s_pu)
    r = np.maximum(network.feeder.r, SMALLEST_R)
    inverse = np.linalg.inv(incidence.T @ (r[:, None] * incidence)) if incidence.shape[1] else np.zeros((0, 0))
    current = tree_current - incidence @ (inverse @ (incidence.T @ (r * tree_current)))
    answer = incidence @ inverse  # loop currents that follow a voltage in each branch
    for _ in range(incidence.shape[1]):
        share = np.einsum("bl,bl->b", incidence, answer)
        # A branch that is in no loop any more has share 0: it is a bridge.
        free = closed & network.switchable & (share * r > 1e-9)
        branch = int(np.argmin(np.where(free, np.abs(current), np.inf)))
        change = incidence @ answer[branch] / share[branch]
        current -= change * current[branch]
        answer -= np.outer(change, answer[branch])
        closed[branch] = False
    return closed


@kernel
def loop_incidence(feeder: Feeder, closed: BoolArray, p: FloatArray, q: FloatArray) -> tuple[FloatArray, ComplexArray]:
    """(m, l) loop incidence matrix of a state and the (m,) complex currents of one of its spanning forests."""
    n, m = feeder.slack.size, closed.size
    tree_branch, ties = split(feeder, closed)
    tree = new_tree(n)
    count = plant(feeder, tree_branch, tree)
    incidence = np.zeros((m, ties.size))
    path = np.empty(n, np.int64)
    for k in range(ties.size):
        tie = ties[k]
        incidence[tie, k] = 1.0
        left, right = loop_of(tree, feeder.from_bus[tie], feeder.to_bus[tie], path)
        for at in range(left + right):
            branch = tree.branch[path[at]]
            down = 1.0 if feeder.to_bus[branch] == path[at] else -1.0
            incidence[branch, k] = down if at < left else -down
    below = p - 1j * q
    current = np.zeros(m, np.complex128)
    for k in range(count - 1, -1, -1):
        i = tree.order[k]
        branch = tree.branch[i]
        if branch >= 0:
            below[tree.parent[i]] += below[i]
            current[branch] = below[i] if feeder.to_bus[branch] == i else -below[i]
    return incidence, current
