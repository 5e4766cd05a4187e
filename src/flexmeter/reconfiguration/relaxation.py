"""A linear relaxation of the reconfiguration problem: directed branch flows, cut by tangents of the exact losses."""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from flexmeter.reconfiguration.flow import radial_flow
from flexmeter.reconfiguration.network import BASE_VA, BoolArray, FeederNetwork, FloatArray, IntArray, merge
from flexmeter.reconfiguration.trees import bridges

INFINITE = highspy.kHighsInf
VIOLATED = 5e-5
SETTLED = {highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible}


@dataclass(frozen=True, eq=False)
class Arcs:
    """Every branch in both directions, except into a substation: (a,) branch, start and end bus.

    `junction` marks arcs into buses where loops meet: they decide which chains of branches are open. `bridge`
    marks branches that every tree contains.
    """

    branch: IntArray
    start: IntArray
    end: IntArray
    junction: BoolArray
    bridge: BoolArray


def arcs_of(network: FeederNetwork) -> Arcs:
    """Return the arcs of the closable branches."""
    feeder = network.feeder
    branch = np.tile(np.flatnonzero(network.closable), 2)
    half = len(branch) // 2
    start = np.concatenate([feeder.from_bus[branch[:half]], feeder.to_bus[branch[:half]]])
    end = np.concatenate([feeder.to_bus[branch[:half]], feeder.from_bus[branch[:half]]])
    keep = ~feeder.slack[end]
    branch, start, end = branch[keep], start[keep], end[keep]
    node = merge(network, np.zeros(network.branch_count, dtype=np.bool_))[0]
    bridge = bridges(node[feeder.from_bus], node[feeder.to_bus], network.closable)
    core = network.closable & ~bridge
    ends = np.concatenate([node[feeder.from_bus[core]], node[feeder.to_bus[core]]])
    degree = np.bincount(ends, minlength=network.bus_count)
    return Arcs(branch, start, end, (degree[end] >= 3) & core[branch], bridge[branch])


class Relaxation:
    """Lower bounds on the losses of all radial states, as a linear programme that HiGHS re-solves from its basis.

    Per arc: x (share of the tree that uses it), sending power P, Q, squared current l and squared voltage w at its
    start, the last four zero where x is zero; per bus the squared voltage v. With loads only (no generation, no
    capacitors) and r, x >= 0 every radial state with at most `upper` losses satisfies

        sum of x into a bus = 1,    P - r l into a bus = its load + P out of it,    Q likewise,
        v = sum over arcs into the bus of w - 2 (r P + x Q) + |z|^2 l,    w <= v at the start,   w <= v_max x,
        l >= (P^2 + Q^2) / w, replaced by its tangents   l >= 2 (P0 P + Q0 Q) / w0 - (P0^2 + Q0^2) / w0^2 w.

    The last line is the perspective of the second-order cone of Farivar and Low 2013 (doi
    10.1109/TPWRS.2013.2255317) in directed arcs; a tangent is valid everywhere because the cone is convex.
    Quantities are in per unit of the total load.
    """

    def __init__(self, network: FeederNetwork, upper_w: float) -> None:
        self.network = network
        self.arcs = arcs_of(network)
        self.scale = float(network.p_w.sum()) / BASE_VA
        self.upper = upper_w / BASE_VA / self.scale
        feeder = network.feeder
        self.r = feeder.r[self.arcs.branch] * self.scale
        self.x = feeder.x[self.arcs.branch] * self.scale
        count = len(self.arcs.branch)
        self.use, self.p, self.q, self.l, self.w = (np.arange(count) + k * count for k in range(5))
        self.v = 5 * count + np.arange(network.bus_count)
        self.solver = highspy.Highs()  # type: ignore[no-untyped-call]
        self.solver.silent()
        self.solver.setOptionValue("threads", 1)
        self.solver.setOptionValue("presolve", "off")
        self._columns()
        self._bus_rows()
        self._arc_rows()

    def _columns(self) -> None:
        feeder, count = self.network.feeder, self.network.bus_count
        size = len(self.arcs.branch)
        lower = np.zeros(5 * size + count)
        upper = np.full(5 * size + count, INFINITE)
        cost = np.zeros(5 * size + count)
        upper[self.use] = 1.0
        cost[self.l] = self.r
        upper[self.v] = float((feeder.slack_v[feeder.slack] ** 2).max())
        slack = self.v[feeder.slack]
        lower[slack] = upper[slack] = feeder.slack_v[feeder.slack] ** 2
        empty = np.zeros(0, dtype=np.int32)
        self.solver.addCols(len(cost), cost, lower, upper, 0, empty, empty, np.zeros(0))

    def _row(self, low: float, high: float, columns: list[int], values: list[float]) -> None:
        self.solver.addRow(low, high, len(columns), np.array(columns, dtype=np.int32), np.array(values))

    def _bus_rows(self) -> None:
        into: list[list[int]] = [[] for _ in range(self.network.bus_count)]
        out: list[list[int]] = [[] for _ in range(self.network.bus_count)]
        for arc, (start, end) in enumerate(zip(self.arcs.start.tolist(), self.arcs.end.tolist(), strict=True)):
            into[end].append(arc)
            out[start].append(arc)
        p, q = (power / self.scale for power in self.network.s_pu)
        for bus in np.flatnonzero(~self.network.feeder.slack).tolist():
            here, away = into[bus], out[bus]
            ones = [1.0] * len(here)
            for power, z, load in ((self.p, self.r, p[bus]), (self.q, self.x, q[bus])):
                columns = [*power[here], *self.l[here], *power[away]]
                self._row(load, load, columns, [*ones, *(-z[here]), *([-1.0] * len(away))])
            self._row(1.0, 1.0, [*self.use[here]], ones)
            r, x = self.r[here], self.x[here]
            columns = [int(self.v[bus]), *self.w[here], *self.p[here], *self.q[here], *self.l[here]]
            self._row(0.0, 0.0, columns, [1.0, *([-1.0] * len(here)), *(2 * r), *(2 * x), *(-(r**2 + x**2))])

    def _arc_rows(self) -> None:
        arcs, feeder = self.arcs, self.network.feeder
        v_max = float((feeder.slack_v[feeder.slack] ** 2).max())
        total = 1.0 + self.upper
        p, q = (power / self.scale for power in self.network.s_pu)
        first: dict[int, int] = {}
        for arc in range(len(arcs.branch)):
            use, start, end = int(self.use[arc]), arcs.start[arc], arcs.end[arc]
            if feeder.slack[start]:
                self._row(0.0, 0.0, [int(self.w[arc]), use], [1.0, -float(feeder.slack_v[start] ** 2)])
            else:
                self._row(-INFINITE, 0.0, [int(self.w[arc]), int(self.v[start])], [1.0, -1.0])
                self._row(-INFINITE, 0.0, [int(self.w[arc]), use], [1.0, -v_max])
            self._row(-INFINITE, 0.0, [int(self.p[arc]), use], [1.0, -total])
            self._row(0.0, INFINITE, [int(self.p[arc]), int(self.l[arc]), use], [1.0, -self.r[arc], -p[end]])
            self._row(0.0, INFINITE, [int(self.q[arc]), int(self.l[arc]), use], [1.0, -self.x[arc], -q[end]])
            other = first.setdefault(int(arcs.branch[arc]), arc)
            if other != arc:
                least = 1.0 if arcs.bridge[arc] else 0.0
                self._row(least, 1.0, [int(self.use[other]), use], [1.0, 1.0])

    def cut(self, arc: IntArray, p: FloatArray, q: FloatArray, w: FloatArray) -> None:
        """Add the tangents of l >= (P^2 + Q^2) / w at the given points, one per arc."""
        if not len(arc):
            return
        columns = np.column_stack([self.p[arc], self.q[arc], self.w[arc], self.l[arc]])
        values = np.column_stack([2 * p / w, 2 * q / w, -(p**2 + q**2) / w**2, np.full(len(arc), -1.0)])
        low, high = np.full(len(arc), -INFINITE), np.zeros(len(arc))
        starts = np.arange(len(arc), dtype=np.int32) * 4
        self.solver.addRows(len(arc), low, high, columns.size, starts, columns.ravel().astype(np.int32), values.ravel())

    def cut_at(self, closed: BoolArray) -> None:
        """Add the tangents at the flows of a radial state."""
        flow = radial_flow(self.network, closed)
        nominal = self.network.nominal_voltage_v[self.network.to_bus]
        current = flow.current_a * np.sqrt(3.0) * nominal / BASE_VA / self.scale
        arcs = self.arcs
        along = np.where(arcs.start == self.network.from_bus[arcs.branch], 1.0, -1.0)
        sent = flow.voltage_pu[arcs.start] * np.conj(along * current[arcs.branch])
        arc = np.flatnonzero(sent.real > 1e-12)
        self.cut(arc, sent.real[arc], sent.imag[arc], np.abs(flow.voltage_pu[arcs.start[arc]]) ** 2)

    def solve(self, rounds: int, enough: float, progress: float) -> tuple[float, FloatArray]:
        """Minimise, adding tangents at the solution up to `rounds` times or until the bound passes `enough`.

        A round that raises the bound by less than the share `progress` of the losses is the last. Returns the bound
        (infinite when no state satisfies the present bounds on x) and the solution.
        """
        value, point = self._run()
        for _ in range(rounds):
            if value >= enough or not self._separate(point):
                break
            before = value
            value, point = self._run()
            if value - before < progress * self.upper:
                break
        return value, point

    def basis(self) -> highspy.HighsBasis:
        """Return the basis of the last solution, to start a related subproblem from."""
        return self.solver.getBasis()

    def start_from(self, basis: highspy.HighsBasis) -> None:
        """Start the next solution from a basis; rows added since then enter it as slack."""
        missing = self.solver.getNumRow() - len(basis.row_status)
        if missing:
            basis.row_status = [*basis.row_status, *([highspy.HighsBasisStatus.kBasic] * missing)]
        self.solver.setBasis(basis)

    def _run(self) -> tuple[float, FloatArray]:
        """Solve the programme; without a basis and with presolve again when the first attempt ends in doubt."""
        self.solver.run()
        if self.solver.getModelStatus() not in SETTLED:
            self.solver.clearSolver()
            self.solver.setOptionValue("presolve", "on")
            self.solver.run()
            self.solver.setOptionValue("presolve", "off")
        status = self.solver.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return np.inf, np.zeros(0)
        if status != highspy.HighsModelStatus.kOptimal:
            return -np.inf, np.zeros(0)
        value = self.solver.getInfo().objective_function_value
        return float(value), np.asarray(self.solver.getSolution().col_value)

    def _separate(self, point: FloatArray) -> bool:
        if not len(point):
            return False
        p, q, w = point[self.p], point[self.q], point[self.w]
        # A vanishing w would give a tangent too steep to compute with; one at half the nominal voltage is valid too.
        safe = np.maximum(w, np.maximum(0.25 * point[self.use], 1e-6))
        missing = ((2 - w / safe) * (p**2 + q**2) / safe - point[self.l]) * self.r
        arc = np.flatnonzero(missing > VIOLATED * self.upper)
        self.cut(arc, p[arc], q[arc], safe[arc])
        return len(arc) > 0
