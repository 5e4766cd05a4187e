"""Screened branch exchange: close a tie, open another branch of its loop, as long as it helps."""

from __future__ import annotations

import numpy as np

from flexmeter.powerflow.compiling import kernel
from flexmeter.reconfiguration.network import BoolArray, Feeder, FloatArray, IntArray
from flexmeter.reconfiguration.score import Cases, Goal, Score, better, case_flow, evaluate, loop_of
from flexmeter.reconfiguration.sweep import Tree, flat, new_tree, plant

# An exchange whose estimate is worse than this share of its own loop losses is not tried: the estimate's error
# comes from load currents that follow the voltage, a few percent.
HOPELESS = 0.05


@kernel
def descend(feeder: Feeder, cases: Cases, goal: Goal, closed: BoolArray, exact: int) -> tuple[Score, int]:
    """Improve `closed` in place until no exchange helps; return its score and the number of states evaluated.

    `exact` is the number of branches per loop whose opening is evaluated by load flow, chosen by the estimated
    change of losses; 0 = all of them.
    """
    n = feeder.slack.size
    tree, trial = new_tree(n), new_tree(n)
    flows = np.empty((cases.share.size, 4, n))
    for case in range(cases.share.size):
        flat(feeder, case_flow(flows, case))
    trial_flows = np.empty_like(flows)
    path = np.empty(n, np.int64)
    score = evaluate(feeder, cases, goal, closed, tree, flows)
    evaluated = 1
    if score.value == np.inf:
        return score, evaluated
    improved = True
    while improved:
        improved = False
        ties, promise = _promises(feeder, cases, closed, tree, flows, path)
        for _ in range(ties.size):
            first = smallest(promise)
            promise[first] = np.inf
            tie = ties[first]
            left, right = loop_of(tree, feeder.from_bus[tie], feeder.to_bus[tie], path)
            change = estimates(feeder, cases, tree, flows, path, left, right, tie)
            wide = exact == 0 or score.violation > 0.0
            for _ in range(left + right if wide else exact):
                k = smallest(change)
                if k < 0 or change[k] == np.inf or (change[k] > 0.0 and not wide):
                    break
                change[k] = np.inf
                opened = tree.branch[path[k]]
                closed[tie], closed[opened] = True, False
                _copy_voltages(flows, trial_flows)
                found = evaluate(feeder, cases, goal, closed, trial, trial_flows)
                evaluated += 1
                if better(found, score):
                    score = found
                    flows, trial_flows = trial_flows, flows
                    tree, trial = trial, tree
                    improved = True
                    break
                closed[tie], closed[opened] = False, True
    return score, evaluated


@kernel
def _promises(
    feeder: Feeder, cases: Cases, closed: BoolArray, tree: Tree, flows: FloatArray, path: IntArray
) -> tuple[IntArray, FloatArray]:
    """Open switchable branches and the largest gain estimated for closing each (as the change of losses)."""
    ties = open_ties(feeder, closed)
    promise = np.empty(ties.size)
    for k in range(ties.size):
        tie = ties[k]
        left, right = loop_of(tree, feeder.from_bus[tie], feeder.to_bus[tie], path)
        change = estimates(feeder, cases, tree, flows, path, left, right, tie)
        best = smallest(change)
        promise[k] = change[best] if best >= 0 else np.inf
    return ties, promise


@kernel
def open_ties(feeder: Feeder, closed: BoolArray) -> IntArray:
    """Positions of the open switchable branches."""
    ties = np.empty(closed.size, np.int64)
    count = 0
    for branch in range(closed.size):
        if feeder.switchable[branch] and not closed[branch]:
            ties[count] = branch
            count += 1
    return ties[:count]


@kernel
def smallest(values: FloatArray) -> int:
    """Position of the smallest value, the first of equals; -1 without values."""
    best = -1
    for k in range(values.size):
        if best < 0 or values[k] < values[best]:
            best = k
    return best


@kernel
def _copy_voltages(source: FloatArray, target: FloatArray) -> None:
    for case in range(source.shape[0]):
        for part in range(2):
            for i in range(source.shape[2]):
                target[case, part, i] = source[case, part, i]


@kernel
def estimates(
    feeder: Feeder,
    cases: Cases,
    tree: Tree,
    flows: FloatArray,
    path: IntArray,
    left: int,
    right: int,
    tie: int,
) -> FloatArray:
    """Change of losses when the tie is closed and one branch of its loop opened, load currents kept, (left + right,).

    With I the current of the opened branch, D the sum of r J over its side of the loop minus that over the other
    side, and R the loop resistance: dL = -2 Re(conj(I) D) + |I|^2 R (Civanlar et al. 1988, doi 10.1109/61.193906,
    in this exact form). To rank the candidates only, the margin `HOPELESS` |I|^2 R is taken off; infinite where the
    branch cannot be opened.
    """
    count = left + right
    change = np.zeros(count)
    r_loop = feeder.r[tie]
    for k in range(count):
        r_loop += tree.r[path[k]]
    for case in range(cases.share.size):
        j_re, j_im = flows[case, 2], flows[case, 3]
        d_re = d_im = 0.0
        for k in range(count):
            i = path[k]
            sign = 1.0 if k < left else -1.0
            d_re += sign * tree.r[i] * j_re[i]
            d_im += sign * tree.r[i] * j_im[i]
        for k in range(count):
            i = path[k]
            sign = 2.0 if k < left else -2.0
            own = (j_re[i] * j_re[i] + j_im[i] * j_im[i]) * r_loop
            gain = sign * (j_re[i] * d_re + j_im[i] * d_im)
            change[k] += cases.share[case] * ((1.0 - HOPELESS) * own - gain)
    for k in range(count):
        if not feeder.switchable[tree.branch[path[k]]]:
            change[k] = np.inf
    return change


@kernel
def kick(feeder: Feeder, closed: BoolArray, loops: int, random: IntArray) -> None:
    """Exchange up to `loops` random ties with random branches of their loops; the state stays radial."""
    n = feeder.slack.size
    tree = new_tree(n)
    path = np.empty(n, np.int64)
    for _ in range(loops):
        plant(feeder, closed, tree)
        ties = open_ties(feeder, closed)
        if ties.size == 0:
            return
        tie = ties[draw(random, ties.size)]
        left, right = loop_of(tree, feeder.from_bus[tie], feeder.to_bus[tie], path)
        usable = 0
        for k in range(left + right):
            if feeder.switchable[tree.branch[path[k]]]:
                path[usable] = path[k]
                usable += 1
        if usable:
            opened = tree.branch[path[draw(random, usable)]]
            closed[tie], closed[opened] = True, False


@kernel
def draw(random: IntArray, below: int) -> int:
    """Return a number in 0..below-1 and advance the generator, which is one integer below 2^31 (Park and Miller)."""
    random[0] = random[0] * 48271 % 2147483647
    return int(random[0] % below)


@kernel
def iterate(
    feeder: Feeder, cases: Cases, goal: Goal, best: BoolArray, score: Score, random: IntArray, rounds: int, exact: int
) -> tuple[Score, int]:
    """Iterated local search: kick one to four loops, descend, keep what is better; improves `best` in place."""
    evaluated = 0
    trial = np.empty_like(best)
    for _ in range(rounds):
        for branch in range(best.size):
            trial[branch] = best[branch]
        kick(feeder, trial, 1 + draw(random, 4), random)
        found, count = descend(feeder, cases, goal, trial, exact)
        evaluated += count
        if better(found, score):
            score = found
            for branch in range(best.size):
                best[branch] = trial[branch]
    return score, evaluated
