"""The estimator kernel: Gauss-Newton by elimination on the tree, refactorised in every iteration.

For a block of scenarios: readings in (`intake`), a load flow of them as `start`, then repeat messages up, root, steps
down (`passes`) and move (`descent`); afterwards the `deviations` from the last factor. Exact weighted least squares:
minimise J = sum ((z - h(x)) / sigma)^2 over head voltages and injected currents.
"""

from __future__ import annotations

from typing import NamedTuple

from flexmeter.estimation.aggregate import AGGREGATE, CURRENT
from flexmeter.estimation.aggregate import B as MESSAGE_B
from flexmeter.estimation.blocks import clear
from flexmeter.estimation.border import close_ties, start_ties
from flexmeter.estimation.correction import correct_root
from flexmeter.estimation.covariance import Wanted
from flexmeter.estimation.descent import factorise, iterate
from flexmeter.estimation.deviations import Deviations, write_deviations
from flexmeter.estimation.flow import CURRENT as CURRENT_MAGNITUDE
from flexmeter.estimation.flow import FLOW, RHO
from flexmeter.estimation.intake import Readings, read_flows, read_meters
from flexmeter.estimation.joint import Joint, write_joint
from flexmeter.estimation.leaf import LEAF, B, I
from flexmeter.estimation.model import EstimatorModel, Places, places
from flexmeter.estimation.move import move
from flexmeter.estimation.passes import steps_down
from flexmeter.estimation.phasor import free_angles
from flexmeter.estimation.places import BUS, BUS_B2, BUS_ETA, BUS_J, BUS_V
from flexmeter.estimation.response import psi_of_root
from flexmeter.estimation.root import ROOT_PRIOR
from flexmeter.estimation.start import start_state
from flexmeter.estimation.unloaded import admit_currents, are_read, losses_tell, set_losses_aside, take_losses_back
from flexmeter.estimation.widening import widen
from flexmeter.powerflow.compiling import inlined, kernel, routine
from flexmeter.powerflow.lanes import (
    LANES,
    ComplexArray,
    FloatArray,
    IntArray,
    WorkArray,
    lanes_left,
    load,
    put,
    put_complex,
    splat,
    store,
    width,
)


class Solution(NamedTuple):
    """Where the state of every scenario goes.

    `spine_v` (3 n_spine, n) bus voltages [V]; `edge_a` the currents of their edges (3 n_spine), then of the leaves
    (n_leaf) [A]; `aggregate_a` (3 n_aggregate, n); `iterations` (n,) -1 where not converged; `objective` (n,) J;
    `helped` (3, n) 1 where a head magnitude was not observable; `left_out` (n_flow, n) 1 where a magnitude of a current
    does not count, written only where any is read.
    """

    spine_v: ComplexArray
    edge_a: ComplexArray
    aggregate_a: ComplexArray
    iterations: IntArray
    objective: FloatArray
    helped: FloatArray
    left_out: FloatArray


ROUGH = 1e-3
"""Tolerance [pu] of the estimate from which magnitudes of currents get their direction."""
FEW = 2
"""So many scenarios are estimated one after the other, more side by side in lanes."""


def lanes_for(n_scenario: int) -> int:
    """Return the lanes of the work array for some scenarios."""
    return 1 if n_scenario <= FEW else LANES


@kernel
def estimate_blocks(
    first_block: int,
    last_block: int,
    w: WorkArray,
    m: EstimatorModel,
    wanted: Wanted,
    readings: Readings,
    tolerance: float,
    max_iterations: int,
    solution: Solution,
    deviations: Deviations,
    joint: Joint,
) -> None:
    """Estimate the scenarios of some blocks."""
    n_scenario = readings.value.shape[1]
    at = places(m)
    for block in range(first_block, last_block):
        start = block * width(w)
        count = lanes_left(w, n_scenario - start)
        level = read_meters(w, at, m, readings, start, count)
        read_flows(w, at, m, readings, start, count)
        start_state(w, at, m, readings, start, count, level)
        if len(m.ties.one) > 0:
            start_ties(w, at, m)
        if m.phasors:
            free_angles(w, at, m)
        aside = losses_tell(w, at, m)
        bent = aside and set_losses_aside(w, at, m, readings.above, start, count)
        ammeters = m.magnitudes and are_read(w, at, m, 0, CURRENT_MAGNITUDE)
        if bent or ammeters:
            iterate(w, at, m, ROUGH, max_iterations, start, count, solution.iterations, solution.objective)
        if aside:
            take_losses_back(w, at, m)
        if ammeters:
            admit_currents(w, at, m, readings.above, solution.left_out, start, count)
        for k in range(count):
            solution.iterations[start + k] = -1
        iterate(w, at, m, tolerance, max_iterations, start, count, solution.iterations, solution.objective)
        uncertain = deviations.head.shape[1] > 0 or len(joint.bus) > 0 or len(joint.losses) > 0
        if uncertain or len(readings.above) > 0:
            factorise(w, at, m)  # once more, at the solution
        if len(readings.above) > 0:
            correct(w, at, m, readings.above, start, count)
        write_solution(w, at, m, solution, start, count)
        write_joint(w, at, m, joint, readings.above, start, count)
        if deviations.head.shape[1] > 0:
            write_deviations(w, at, m, wanted, readings.above, deviations, start, count)
            if len(m.flow_kind) > 0:
                widen(w, at, m, wanted, readings.above, deviations, start, count)


@routine
def correct(w: WorkArray, at: Places, m: EstimatorModel, above: FloatArray, start: int, count: int) -> None:
    """Move the state to what the level above answers: the steps follow from the root's alone, all b and eta are 0."""
    for k in range(len(m.parent)):
        clear(w, at.bus + BUS * k + BUS_B2, 6)
        clear(w, at.bus + BUS * k + BUS_ETA, 6)
    for leaf in range(len(m.leaf_plus)):
        clear(w, at.leaf + LEAF * leaf + B, 2)
    for k in range(len(m.aggregate_bus)):
        clear(w, at.aggregate + AGGREGATE * k + MESSAGE_B, 6)
    for flow in range(len(m.flow_kind)):
        store(w, at.flow + FLOW * flow + RHO, 0.0)
    psi_of_root(w, at, m, at.scratch)
    correct_root(w, at.bus, at.correction, at.scratch, above, start, count)
    steps_down(w, at, m)
    if len(m.ties.one) > 0:
        close_ties(w, at, m)
    move(w, at, m, splat(w, 1.0))


@inlined
def write_solution(w: WorkArray, at: Places, m: EstimatorModel, out: Solution, start: int, count: int) -> None:
    """Write voltages, currents, and whether the head was observable."""
    n, n_leaf = len(m.parent), len(m.leaf_plus)
    for k in range(n):
        bus = at.bus + BUS * k
        for q in range(3):
            row, v, j = 3 * k + q, bus + BUS_V + 2 * q, bus + BUS_J + 2 * q
            put_complex(out.spine_v, row, start, count, load(w, v), load(w, v + 1))
            put_complex(out.edge_a, row, start, count, load(w, j), load(w, j + 1))
    for leaf in range(n_leaf):
        here = at.leaf + LEAF * leaf
        put_complex(out.edge_a, 3 * n + leaf, start, count, load(w, here + I), load(w, here + I + 1))
    for k in range(len(m.aggregate_bus)):
        here = at.aggregate + AGGREGATE * k + CURRENT
        for q in range(3):
            put_complex(out.aggregate_a, 3 * k + q, start, count, load(w, here + 2 * q), load(w, here + 2 * q + 1))
    for q in range(3):
        put(out.helped, q, start, count, load(w, at.root + ROOT_PRIOR + q))
