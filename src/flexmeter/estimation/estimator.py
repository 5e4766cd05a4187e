"""Weighted-least-squares estimation of a network's state: the public call over the kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.aggregate import REPORT, condition_reports
from flexmeter.estimation.correction import ABOVE, condition_answer
from flexmeter.estimation.covariance import Wanted
from flexmeter.estimation.deviations import Deviations
from flexmeter.estimation.estimate import Answer, Estimate, Reports
from flexmeter.estimation.flow import CURRENT, PHASOR
from flexmeter.estimation.forecast import Forecast, default_forecast
from flexmeter.estimation.gauss_newton import Solution, estimate_blocks, lanes_for
from flexmeter.estimation.intake import Readings
from flexmeter.estimation.joint import Joint
from flexmeter.estimation.layout import combine, lay_out, places_of
from flexmeter.estimation.measurements import NEVER_EXACT, Meter, check_readings, count_bad, count_known, describe
from flexmeter.estimation.model import EstimatorModel, work_size
from flexmeter.estimation.packed import Compiled
from flexmeter.grid.model import Symmetry
from flexmeter.powerflow.lanes import FloatArray, IntArray, block_count, ready, work_array
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.solve import node_map, share_blocks
from flexmeter.powerflow.sweep import expand

SYMMETRIES: tuple[Symmetry, ...] = ("free", "no_zero_sequence", "balanced")
"""What is known of the head voltages, numbered as in `root.set_basis`."""

_ROWS = np.empty(0, np.int64)
NOTHING = np.empty((0, 1))
NOTHING_JOINT = Joint(_ROWS, _ROWS, _ROWS, _ROWS, np.empty((0, 1)), np.empty((0, 1))), np.empty(0)

PHASE_TURN = np.exp(-2j * np.pi / 3 * np.arange(3))
TURN_RE, TURN_IM = PHASE_TURN.real[:, None].copy(), PHASE_TURN.imag[:, None].copy()


class Estimator:
    """A network and the meters in it, compiled; `estimate` may be called any number of times, from any thread.

    Parameters
    ----------
    network : from `compile_network`
    meters : what the rows of the readings are; several meters of the same quantity are combined
    forecast : what is assumed where a reading is missing (default: `default_forecast`)

    Raises
    ------
    MeasurementError
        meters at loads, buses, branches or phases that do not exist, or of a quantity that is not read there.

    Notes
    -----
    A few closed loops are estimated exactly (`border`); every loop adds 24 passes over the buses between its ends and
    the head to an iteration, and 36 columns over all buses to the standard deviations.
    """

    def __init__(self, network: Network, meters: Iterable[Meter], forecast: Forecast | None = None) -> None:
        self.network = network
        self.meters = tuple(meters)
        self.layout = lay_out(network, self.meters)
        self._merged = self.layout.n_slot < len(self.meters)
        self._is_voltage = np.array([meter.quantity == "voltage" for meter in self.meters], float)
        self._is_inexact = np.array([meter.quantity in NEVER_EXACT for meter in self.meters], float)
        self.forecast = forecast or default_forecast(network)
        self._compile(self.forecast)

    @cached_property
    def _rows(self) -> dict[Meter, int]:
        return {meter: row for row, meter in enumerate(self.meters)}

    @property
    def compiled(self) -> Compiled:
        """What the kernels take of it."""
        slot = self.layout.slot if self._merged else self.layout.slot[:0]
        report, rows = self._reports(None, 1), (self._free_rows, self._phasor_rows)
        return Compiled(self._model, self._wanted, *self._node_map[:2], *rows, slot, report)

    def _compile(self, forecast: Forecast) -> None:
        network, layout = self.network, self.layout
        tree = layout.tree
        columns = (
            forecast.active_power_w,
            forecast.sigma_active_power_w,
            forecast.reactive_power_var,
            forecast.sigma_reactive_power_var,
        )
        each = np.column_stack(columns).astype(float)
        of_leaves = np.zeros((tree.n_leaf, 4))
        of_leaves[layout.load_leaves] = each[layout.load_injections]
        self._aggregate_forecast = np.ascontiguousarray(each[layout.aggregate_injections].reshape(-1, 12))
        self._model = EstimatorModel(
            parent=tree.parent,
            impedance=tree.impedance,
            transfer=tree.transfer,
            has_transfer=tree.has_transfer,
            shunt=tree.shunt,
            has_shunt=tree.has_shunt,
            first_leaf=tree.first_leaf,
            leaf_plus=tree.leaf_plus,
            leaf_minus=tree.leaf_minus,
            leaf_z=tree.leaf_z,
            row_p=layout.leaf_rows[0],
            row_q=layout.leaf_rows[1],
            row_v=layout.leaf_rows[2],
            forecast=of_leaves,
            nominal=tree.network.nominal_v[tree.bus],
            aggregate_bus=layout.aggregate_rows[::3] // 3,
            symmetry=SYMMETRIES.index(network.symmetry),
            first_flow=layout.first_flow,
            flow_kind=layout.flow_kind,
            flow_phase=layout.flow_phase,
            flow_minus=layout.flow_minus,
            flow_row=layout.flow_row,
            flow_sign=layout.flow_sign,
            phasors=bool((layout.flow_kind >= PHASOR).any()),
            magnitudes=bool((layout.flow_kind == CURRENT).any()),
            ties=layout.ties,
        )
        self._free_rows = np.concatenate([self._model.row_v[self._model.row_v >= 0], layout.flow_row])
        self._phasor_rows = layout.flow_row[layout.flow_kind >= PHASOR]
        self._node_map = node_map(tree)
        bus = network.node_bus
        self._wanted = Wanted(tree.bus_spine[bus], network.node_phase, tree.bus_edge[bus], self._node_map[2])

    def estimate(
        self,
        value: ArrayLike,
        sigma: ArrayLike,
        *,
        reports: Reports | None = None,
        source_angle_rad: ArrayLike | None = None,
        answer: Answer | None = None,
        covariance: bool = True,
        joint: Sequence[Meter] = (),
        losses: bool = False,
        start: Estimate | None = None,
        tolerance_pu: float = 1e-9,
        max_iterations: int = 200,
        threads: int = 1,
        check: bool = True,
    ) -> Estimate:
        """Return the weighted-least-squares estimate of every scenario.

        Parameters
        ----------
        value, sigma : (n_meter, n_scenario) readings, nan = missing, and standard deviations (or (n_meter,) each)
        reports : what the areas below reported; an area without report enters as its forecast
        source_angle_rad : (3,) or (3, n_scenario) angles of the head voltages; default 0, -120, 120 degrees. In a
            scenario with a phasor reading only the angles between the phases count, see `phasor`
        answer : what the level above made of this area's report: corrects every state, see `correction`
        covariance : whether to compute standard deviations and the joint covariances of head and aggregates
        joint : meters of this estimator (with or without a reading) whose joint covariance is wanted
        losses : whether to compute the standard deviation of the losses
        start : an earlier estimate of this estimator to start from, of one scenario or of as many (default: a load flow
            of the readings, the better start where most loads are read); the optimum is the same
        tolerance_pu : no voltage is off the optimum by more than this, judged by the last two steps [pu]
        max_iterations : cap; a scenario that reaches it has `iterations` = -1
        threads : blocks of scenarios are shared among them
        check : whether to look at every number first (leave on for data from outside)

        Raises
        ------
        MeasurementError
            wrong shapes, a negative or infinite sigma, sigma 0 of a voltage, an infinite reading, a voltage that is not
            positive, a joint quantity that is none of the meters. Sigma 0 of a power or a current is an exact reading.

        Notes
        -----
        Minimises J = sum ((z - h(x)) / sigma)^2 (paper section 4, and doi:10.1109/TIM.2013.2272397 for branch currents
        as state) by Gauss-Newton with elimination on the tree: docs/methods/estimation.md.
        """
        z, s = self._readings(value, sigma, check)
        n = z.shape[1] if z.shape[0] or reports is None else reports.value.shape[2]
        reported, above = self._reports(reports, n), self._above(answer, n)
        readings = Readings(z, s, reported, *head_angles(source_angle_rad, n), above, *self._start(start, n))
        solution, deviations = self._solution(n), self._deviations(n if covariance else 0)
        node_v = np.empty((len(self.network.nodes), n), complex)
        chosen, sign = self._joint(joint, losses, n)
        size, lanes = work_size(self._model, len(chosen.bus) + len(chosen.losses)), lanes_for(n)

        def run(first: int, last: int) -> None:
            estimate_blocks(
                first, last, work_array(size, lanes), self._model, self._wanted, readings, tolerance_pu, max_iterations,
                solution, deviations, chosen,
            )  # fmt: skip
            expand(first * lanes, last * lanes, *self._node_map, solution.spine_v, solution.edge_a, node_v)

        share_blocks(run, block_count(n, lanes), threads)
        observable = solution.helped == 0.0
        return Estimate(
            layout=self.layout,
            voltage_v=node_v,
            sigma_voltage_v=deviations.node,
            objective=solution.objective,
            degrees_of_freedom=self._degrees(z, reports, observable) - solution.left_out.sum(0).astype(np.int64),
            iterations=solution.iterations,
            head_observable=observable,
            aggregate_covariance=deviations.aggregate.reshape(
                len(self.network.aggregates), 9, 9, n if covariance else 0
            ),
            spine_v=solution.spine_v,
            edge_a=solution.edge_a,
            aggregate_a=solution.aggregate_a,
            _left_out=solution.left_out,
            _leaf_sigma=deviations.leaf,
            _flow_sigma=deviations.flow,
            _head_covariance=deviations.head,
            joint_covariance=_signed(chosen.covariance, sign, n),
            sigma_losses_w=chosen.losses[0] if losses else np.empty(0),
        )

    def _joint(self, meters: Sequence[Meter], losses: bool, n_scenario: int) -> tuple[Joint, FloatArray]:
        if not meters and not losses:
            return NOTHING_JOINT
        layout, n = self.layout, len(meters)
        strange = tuple(describe(meter) for meter in meters if meter not in self._rows)
        if strange:
            text = "is not among the estimator's meters; a meter may be one without readings (nan)"
            raise MeasurementError([Finding("joint", strange, "id", text)], self.network.name)
        slots = [int(layout.slot[self._rows[meter]]) for meter in meters]
        bus, flow, leaf, part, sign = places_of(layout, slots)
        out = np.empty((n * n, n_scenario)), np.empty((int(losses), n_scenario))
        return Joint(bus, flow, leaf, part, *out), sign

    def _solution(self, n_scenario: int) -> Solution:
        tree, n = self.layout.tree, n_scenario
        return Solution(
            spine_v=np.empty((3 * tree.n_spine, n), complex),
            edge_a=np.zeros((3 * tree.n_spine + tree.n_leaf + 2, n), complex),  # a leaf is read as one of three rows
            aggregate_a=np.empty((3 * len(self.network.aggregates), n), complex),
            iterations=np.empty(n, np.int64),
            objective=np.empty(n),
            helped=np.empty((3, n)),
            left_out=np.zeros((len(self.layout.flow_row), n)),
        )

    def _deviations(self, n_scenario: int) -> Deviations:
        layout, n = self.layout, n_scenario
        return Deviations(
            node=np.empty((len(self.network.nodes), n)),
            leaf=np.empty((3 * layout.tree.n_leaf, n)),
            flow=np.empty((len(layout.flow_row), n)),
            head=np.empty((81, n)),
            aggregate=np.empty((81 * len(self.network.aggregates), n)),
        )

    def _readings(self, value: ArrayLike, sigma: ArrayLike, check: bool) -> tuple[FloatArray, FloatArray]:
        z, s = np.asarray(value, float), np.asarray(sigma, float)
        z, s = (array[:, None] if array.ndim == 1 else array for array in (z, s))
        shapes_fit = z.ndim == 2 and len(z) == len(self.meters) and s.shape in (z.shape, (len(z), 1))
        wide = s if s.shape == z.shape or not shapes_fit else np.broadcast_to(s, z.shape)
        if not shapes_fit or (check and count_bad(ready(z), ready(wide), self._is_inexact, self._is_voltage)):
            raise MeasurementError(check_readings(self.meters, z, s), self.network.name)
        if self._merged:
            z, wide = combine(self.layout.slot, z, wide)
        return ready(z), ready(wide)

    def _reports(self, reports: Reports | None, n_scenario: int) -> FloatArray:
        n = len(self.network.aggregates)
        if reports is None and n == 0:
            return np.empty((0, n_scenario))
        if reports is None:
            value, cov = np.full((n, 9, n_scenario), np.nan), np.full((n, 9, 9, n_scenario), np.nan)
        else:
            value, cov = np.asarray(reports.value, float), np.asarray(reports.covariance, float)
        if value.shape != (n, 9, n_scenario) or cov.shape != (n, 9, 9, n_scenario):
            text = f"shapes {value.shape}, {cov.shape}, expected ({n}, 9, {n_scenario}), ({n}, 9, 9, {n_scenario})"
            raise MeasurementError([Finding("report", (), "value", text)], self.network.name)
        out = np.empty((n * REPORT, n_scenario))
        if n:
            condition_reports(ready(value), ready(cov), self._aggregate_forecast, np.empty((3, 9, 10)), out)
        return out

    def _above(self, answer: Answer | None, n_scenario: int) -> FloatArray:
        if answer is None:
            return np.empty((0, n_scenario))
        value, message = ready(answer.value), ready(answer.message)
        covariance, message_covariance = ready(answer.covariance), ready(answer.message_covariance)
        shapes = (value.shape, covariance.shape, message.shape, message_covariance.shape)
        if shapes != 2 * ((9, n_scenario), (9, 9, n_scenario)):
            text = f"shapes {shapes}, expected (9, {n_scenario}) and (9, 9, {n_scenario})"
            raise MeasurementError([Finding("answer", (), "value", text)], self.network.name)
        out = np.empty((ABOVE, n_scenario))
        condition_answer(value, covariance, message, message_covariance, np.empty((3, 9, 10)), out)
        return out

    def _start(self, start: Estimate | None, n_scenario: int) -> tuple[FloatArray, FloatArray]:
        if start is None:
            return NOTHING, NOTHING
        n = start.voltage_v.shape[1]
        if start.layout is not self.layout or n not in (1, n_scenario):
            text = f"{n} scenarios of {start.network.name}, expected an estimate of this estimator of 1 or {n_scenario}"
            raise MeasurementError([Finding("start", (), "voltage_v", text)], self.network.name)
        tree, rows = self.layout.tree, 3 * self.layout.tree.n_spine
        level = np.abs(start.spine_v[:3]) / self._model.nominal[0]
        if self.network.symmetry == "no_zero_sequence":  # magnitudes at the convention's angles would have one
            level = np.repeat(level.mean(axis=0, keepdims=True), 3, axis=0)
        state = np.concatenate([level, start.edge_a[rows : rows + tree.n_leaf], start.aggregate_a])
        state[:, ~start.converged] = complex(np.nan, np.nan)
        wide = np.broadcast_to(state, (len(state), n_scenario))
        return ready(wide.real), ready(wide.imag)

    def _degrees(self, z: FloatArray, reports: Reports | None, observable: np.ndarray) -> IntArray:
        """Return readings minus states: each load's P and Q (or its forecast) pay for its current."""
        known = count_known(z, self._free_rows) - (1 if self.network.symmetry == "balanced" else observable.sum(0))
        if len(self._phasor_rows):
            known -= (~np.isnan(z[self._phasor_rows])).any(0)  # the turn of the head voltages
        return np.asarray(known if reports is None else known + (~np.isnan(reports.value[:, :3])).sum((0, 1)))


def _signed(covariance: FloatArray, sign: FloatArray, n_scenario: int) -> FloatArray:
    """Return (n, n, n_scenario) the joint covariance in the branches' own directions."""
    n = len(sign)
    if n == 0:
        return np.empty((0, 0, n_scenario))
    return np.asarray(covariance.reshape(n, n, n_scenario) * np.multiply.outer(sign, sign)[:, :, None])


def head_angles(angle: ArrayLike | None, n_scenario: int) -> tuple[FloatArray, FloatArray]:
    """Return (3, n_scenario) real and imaginary parts of the directions of the head voltages."""
    if angle is None and n_scenario == 1:
        return TURN_RE, TURN_IM
    turn = PHASE_TURN if angle is None else np.exp(1j * np.asarray(angle, float))
    turn = turn[:, None] if turn.ndim == 1 else turn
    full = np.broadcast_to(turn, (3, n_scenario))
    return np.ascontiguousarray(full.real), np.ascontiguousarray(full.imag)
