"""Weighted-least-squares estimation of a network's state: the public call over the kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import Finding, MeasurementError
from flexmeter.estimation.aggregate import REPORT, condition_reports
from flexmeter.estimation.correction import ABOVE, condition_answer
from flexmeter.estimation.covariance import Wanted
from flexmeter.estimation.gauss_newton import EstimatorModel, estimate_blocks, work_size
from flexmeter.estimation.measurements import Measurements, Meter, check_readings, describe
from flexmeter.grid.model import PHASES, Symmetry
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray, block_count, ready
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.solve import node_map, share_blocks
from flexmeter.powerflow.sweep import expand_blocks
from flexmeter.powerflow.tree import Tree, is_aggregate, reduce_network

FUSE_CURRENT_A = 25.0
"""Where nothing is known of a load, 0 with the power of this current is assumed: a usual main fuse of a household."""

SYMMETRIES: tuple[Symmetry, ...] = ("free", "no_zero_sequence", "balanced")
"""What is known of the head voltages, numbered as in `root.set_basis`."""

PHASE_TURN = np.exp(-2j * np.pi / 3 * np.arange(3))


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is assumed of an injection that no meter reads: mean and sigma of P [W] and Q [var], (n_injection,) each."""

    active_power_w: FloatArray
    sigma_active_power_w: FloatArray
    reactive_power_var: FloatArray
    sigma_reactive_power_var: FloatArray


def default_forecast(network: Network) -> Forecast:
    """Return the loads' default powers, each with a sigma of its own size, at least a main fuse's power."""
    fuse = FUSE_CURRENT_A * network.load_v
    sigma = np.maximum(np.maximum(np.abs(network.power_w), np.abs(network.power_var)), fuse)
    return Forecast(network.power_w, sigma, network.power_var, sigma)


@dataclass(frozen=True, eq=False)
class Reports:
    """What the areas below hand upward, in the order of `network.aggregates`.

    Attributes
    ----------
    value : (n_aggregate, 9, n_scenario) |V| of a, b, c [V], P [W], Q [var] into the area; nan = unobservable or missing
    covariance : (n_aggregate, 9, 9, n_scenario) their joint covariance
    """

    value: FloatArray
    covariance: FloatArray


@dataclass(frozen=True, eq=False)
class Answer:
    """What the level above answers to an area's report: both as (9, n_scenario) with (9, 9, n_scenario) covariance.

    `message` is what the area reported (its `Estimate.head`), `value` what the level above made of it
    (`Estimate.aggregate` of the area there).
    """

    value: FloatArray
    covariance: FloatArray
    message: FloatArray
    message_covariance: FloatArray


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated state in every scenario, with standard deviations where they were asked for.

    Attributes
    ----------
    voltage_v : (n_node, n_scenario) complex phase-to-earth voltages [V], rows as `network.nodes`; the angle is
        relative to phase a of the head unless source angles were given
    sigma_voltage_v : (n_node, n_scenario) standard deviation of the magnitude [V]
    power_va : (n_injection, n_scenario) complex power drawn by each injection [VA], rows as `network.injections`
    sigma_active_power_w, sigma_reactive_power_var : (n_injection, n_scenario) [W], [var]
    head, head_covariance : (9, n_scenario), (9, 9, n_scenario) |V|, P, Q of the phases at the head bus and their joint
        covariance: what an area hands upward; nan where nothing observes it
    aggregate, aggregate_covariance : (n_aggregate, 9, n_scenario), (n_aggregate, 9, 9, n_scenario) the same at each
        aggregate: what the areas below get back
    objective : (n_scenario,) J, the weighted sum of squared residuals (forecasts of missing readings included)
    degrees_of_freedom : (n_scenario,) readings minus states
    iterations : (n_scenario,) Gauss-Newton steps, -1 where not converged
    """

    network: Network
    tree: Tree
    voltage_v: ComplexArray
    injection_a: ComplexArray
    edge_a: ComplexArray
    spine_v: ComplexArray
    aggregate_a: ComplexArray
    sigma_voltage_v: FloatArray
    sigma_active_power_w: FloatArray
    sigma_reactive_power_var: FloatArray
    head: FloatArray
    head_covariance: FloatArray
    aggregate_covariance: FloatArray
    objective: FloatArray
    degrees_of_freedom: IntArray
    iterations: IntArray
    head_observable: np.ndarray

    @property
    def converged(self) -> np.ndarray:
        """(n_scenario,) whether the iteration reached its tolerance."""
        return np.asarray(self.iterations >= 0)

    @cached_property
    def power_va(self) -> ComplexArray:
        """(n_injection, n_scenario) complex power drawn by each injection [VA]."""
        return np.asarray(_terminal_voltage(self.network, self.voltage_v) * self.injection_a.conj())

    @cached_property
    def aggregate(self) -> FloatArray:
        """(n_aggregate, 9, n_scenario) estimate of what each area below reported."""
        v = self.spine_v[self._aggregate_rows]
        s = v * self.aggregate_a.conj()
        n = len(self.network.aggregates)
        shape = (n, 3, self.voltage_v.shape[1])
        parts = (np.abs(v).reshape(shape), s.real.reshape(shape), s.imag.reshape(shape))
        return np.concatenate(parts, axis=1)

    @cached_property
    def aggregate_angle_rad(self) -> FloatArray:
        """(n_aggregate, 3, n_scenario) voltage angles at each aggregate's bus: what `source_angle_rad` wants below."""
        return np.angle(self.spine_v[self._aggregate_rows]).reshape(-1, 3, self.voltage_v.shape[1])

    @property
    def _aggregate_rows(self) -> IntArray:
        spine = np.array([self.tree.bus_spine[bus] for _, bus in self.network.aggregates], np.int64)
        return (3 * spine[:, None] + np.arange(3)).ravel()


def _terminal_voltage(network: Network, voltage_v: ComplexArray) -> ComplexArray:
    plus, minus = network.injection_nodes
    v = voltage_v[plus]
    delta = minus >= 0
    if delta.any():
        v[delta] -= voltage_v[minus[delta]]
    return v


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
        meters at loads, buses or phases that do not exist, a power meter at a bus.
    """

    def __init__(self, network: Network, meters: Iterable[Meter], forecast: Forecast | None = None) -> None:
        self.network = network
        self.meters = tuple(meters)
        self._compile(forecast or default_forecast(network))

    def _compile(self, forecast: Forecast) -> None:
        network = self.network
        keys = [_key(network, meter) for meter in self.meters]
        bad = tuple(describe(meter) for meter, key in zip(self.meters, keys, strict=True) if key is None)
        if bad:
            raise MeasurementError([Finding("meter", bad, "id", "no such load, bus or phase")], network.name)
        slots = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        self._slot = np.array([slots[key] for key in keys], np.int64)
        self._n_slot = len(slots)
        self._merged = self._n_slot < len(keys)
        sites = [key[1:] for key in slots if key is not None and key[0] == "bus voltage"]
        tree = reduce_network(network, voltmeters=sites, aggregate_leaves=False)
        self.tree = tree
        rows = _leaf_rows(tree, slots)
        f = np.column_stack(
            [
                forecast.active_power_w,
                forecast.sigma_active_power_w,
                forecast.reactive_power_var,
                forecast.sigma_reactive_power_var,
            ]
        ).astype(float)
        leaf_forecast = np.zeros((tree.n_leaf, 4))
        has_load = tree.leaf_injection >= 0
        leaf_forecast[has_load] = f[tree.leaf_injection[has_load]]
        aggregates = [k for k, row in enumerate(network.injections) if is_aggregate(row[0])]
        self._aggregate_forecast = np.ascontiguousarray(f[aggregates].reshape(-1, 12))
        self._aggregate_injections = np.array(aggregates, np.int64)
        self._load_injections = np.flatnonzero(tree.injection_leaf >= 0)
        self._load_leaves = tree.injection_leaf[self._load_injections]
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
            row_p=rows[0],
            row_q=rows[1],
            row_v=rows[2],
            forecast=leaf_forecast,
            nominal=network.nominal_v[tree.bus],
            aggregate_bus=np.array([tree.bus_spine[bus] for _, bus in network.aggregates], np.int64),
            symmetry=SYMMETRIES.index(network.symmetry),
        )
        self._node_spine, self._node_edge, self._node_x = node_map(tree)
        bus = network.node_bus
        self._wanted = Wanted(tree.bus_spine[bus], network.node_phase, tree.bus_edge[bus], self._node_x)

    def estimate(
        self,
        value: ArrayLike,
        sigma: ArrayLike,
        *,
        reports: Reports | None = None,
        source_angle_rad: ArrayLike | None = None,
        answer: Answer | None = None,
        covariance: bool = True,
        tolerance_pu: float = 1e-8,
        max_iterations: int = 30,
        threads: int = 1,
        check: bool = True,
    ) -> Estimate:
        """Return the weighted-least-squares estimate of every scenario.

        Parameters
        ----------
        value, sigma : (n_meter, n_scenario) readings, nan = missing, and standard deviations (or (n_meter,) each)
        reports : what the areas below reported; an area without report enters as its forecast
        source_angle_rad : (3,) or (3, n_scenario) angles of the head voltages; default 0, -120, 120 degrees
        answer : what the level above made of this area's report: corrects every state, see `correction`
        covariance : whether to compute standard deviations and joint covariances
        tolerance_pu : the last step moved no voltage by more than this [pu]
        max_iterations : cap; a scenario that reaches it has `iterations` = -1
        threads : blocks of scenarios are shared among them
        check : whether to look at every number first (leave on for data from outside)

        Raises
        ------
        MeasurementError
            wrong shapes, negative sigma and the like: see `measurements`.

        Notes
        -----
        Minimises J = sum ((z - h(x)) / sigma)^2 (paper section 4, and doi:10.1109/TIM.2013.2272397 for branch currents
        as state) by Gauss-Newton with elimination on the tree: docs/methods/estimation.md.
        """
        z, s = self._readings(value, sigma, check)
        n_scenario = z.shape[1] if z.shape[0] or reports is None else reports.value.shape[2]
        angle = _angles(source_angle_rad, n_scenario)
        report = self._reports(reports, n_scenario)
        above = self._above(answer, n_scenario)
        tree, network = self.tree, self.network
        spine_v = np.empty((3 * tree.n_spine, n_scenario), complex)
        edge_a = np.zeros((3 * tree.n_spine + tree.n_leaf + 2, n_scenario), complex)
        aggregate_a = np.empty((3 * len(network.aggregates), n_scenario), complex)
        node_v = np.empty((len(network.nodes), n_scenario), complex)
        iterations, j = np.empty(n_scenario, np.int64), np.empty(n_scenario)
        helped = np.empty((3, n_scenario))
        n = n_scenario if covariance else 0
        node_sigma, leaf_sigma = np.empty((len(network.nodes), n)), np.empty((2 * tree.n_leaf, n))
        head, nine = np.empty((81, n)), np.empty((81 * len(network.aggregates), n))

        def run(first: int, last: int) -> None:
            estimate_blocks(
                first, last, np.zeros(work_size(self._model)), self._model, z, s, report, angle[0], angle[1], tolerance_pu, max_iterations,
                spine_v, edge_a, aggregate_a, iterations, j, helped,
                above, covariance, self._wanted, node_sigma, leaf_sigma, head, nine,
            )  # fmt: skip
            expand_blocks(first, last, self._node_spine, self._node_edge, self._node_x, spine_v, edge_a, node_v)

        share_blocks(run, block_count(n_scenario), threads)
        return self._result(
            node_v, spine_v, edge_a, aggregate_a, node_sigma, leaf_sigma, head, nine, j, iterations, helped, z
        )

    def _readings(self, value: ArrayLike, sigma: ArrayLike, check: bool) -> tuple[FloatArray, FloatArray]:
        z, s = np.asarray(value, float), np.asarray(sigma, float)
        z, s = (array[:, None] if array.ndim == 1 else array for array in (z, s))
        if check:
            findings = check_readings(self.meters, z, s)
            if findings:
                raise MeasurementError(findings, self.network.name)
        if s.shape != z.shape:
            s = np.broadcast_to(s, z.shape)
        if self._merged:
            z, s = self._merge(z, s)
        return ready(z), ready(s)

    def _merge(self, z: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Combine readings of the same quantity: weighted mean; the smallest sigma allowed for is 1e-9."""
        weight = np.where(np.isnan(z), 0.0, 1 / np.maximum(s, 1e-9) ** 2)
        total, moment = np.zeros((self._n_slot, z.shape[1])), np.zeros((self._n_slot, z.shape[1]))
        np.add.at(total, self._slot, weight)
        np.add.at(moment, self._slot, weight * np.nan_to_num(z))
        with np.errstate(invalid="ignore", divide="ignore"):
            return moment / total, 1 / np.sqrt(total)

    def _reports(self, reports: Reports | None, n_scenario: int) -> FloatArray:
        n = len(self.network.aggregates)
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

    def _result(
        self,
        node_v: ComplexArray,
        spine_v: ComplexArray,
        edge_a: ComplexArray,
        aggregate_a: ComplexArray,
        node_sigma: FloatArray,
        leaf_sigma: FloatArray,
        head: FloatArray,
        nine: FloatArray,
        j: FloatArray,
        iterations: IntArray,
        helped: FloatArray,
        z: FloatArray,
    ) -> Estimate:
        tree, n_scenario = self.tree, node_v.shape[1]
        n, n_injection = head.shape[1], len(self.network.injections)
        observable = helped == 0.0
        injection_a = np.empty((n_injection, n_scenario), complex)
        injection_a[self._load_injections] = edge_a[3 * tree.n_spine + self._load_leaves]
        injection_a[self._aggregate_injections] = aggregate_a
        sigma_p, sigma_q = np.empty((n_injection, n)), np.empty((n_injection, n))
        sigma_p[self._load_injections] = leaf_sigma[2 * self._load_leaves]
        sigma_q[self._load_injections] = leaf_sigma[2 * self._load_leaves + 1]
        nine = nine.reshape(len(self.network.aggregates), 9, 9, n)
        for k in range(3):
            sigma_p[self._aggregate_injections[k::3]] = np.sqrt(np.maximum(nine[:, 3 + k, 3 + k], 0))
            sigma_q[self._aggregate_injections[k::3]] = np.sqrt(np.maximum(nine[:, 6 + k, 6 + k], 0))
        v, s = spine_v[:3], spine_v[:3] * edge_a[:3].conj()
        value = np.concatenate([np.abs(v), s.real, s.imag])
        value[:3][~observable] = np.nan
        cov = head.reshape(9, 9, n)
        if n and not observable.all():
            cov[:3][~observable[:, None, :] & np.ones((3, 9, n), bool)] = np.nan
            cov[:, :3][~observable[None] & np.ones((9, 3, n), bool)] = np.nan
        return Estimate(
            network=self.network,
            tree=tree,
            voltage_v=node_v,
            injection_a=injection_a,
            edge_a=edge_a,
            spine_v=spine_v,
            aggregate_a=aggregate_a,
            sigma_voltage_v=node_sigma,
            sigma_active_power_w=sigma_p,
            sigma_reactive_power_var=sigma_q,
            head=value,
            head_covariance=cov,
            aggregate_covariance=nine,
            objective=j,
            degrees_of_freedom=self._degrees(z, observable),
            iterations=iterations,
            head_observable=observable,
        )

    def _degrees(self, z: FloatArray, observable: np.ndarray) -> IntArray:
        rows = self._model.row_v[self._model.row_v >= 0]
        return np.asarray((~np.isnan(z[rows])).sum(0) - observable.sum(0))


_Key = tuple[str, int, int, int]


def _key(network: Network, meter: Meter) -> _Key | None:
    """Return what a meter reads, as a key that is the same for meters of the same quantity; None if there is none."""
    if meter.at == "load":
        row = network.injection_row.get((meter.id, meter.phase))
        return None if row is None or is_aggregate(meter.id) else (meter.quantity, row, 0, 0)
    bus = network.bus_row.get(meter.id)
    phases = [PHASES.find(letter) for letter in meter.phase]
    have = all((meter.id, letter) in network.node_row for letter in meter.phase)
    if bus is None or not have or meter.quantity != "voltage" or not 1 <= len(phases) <= 2:
        return None
    return "bus voltage", bus, phases[0], phases[1] if len(phases) == 2 else -1


def _leaf_rows(tree: Tree, slots: dict[_Key | None, int]) -> IntArray:
    """Return (3, n_leaf) rows of the P, Q and V readings of every leaf, -1 = none."""
    rows = np.full((3, tree.n_leaf), -1, np.int64)
    kinds = {"active_power": 0, "reactive_power": 1, "voltage": 2}
    loose = {}
    for leaf in np.flatnonzero(tree.leaf_injection < 0):
        spine = int(np.searchsorted(tree.first_leaf, leaf, side="right")) - 1
        loose[int(tree.bus[spine]), int(tree.leaf_plus[leaf]), int(tree.leaf_minus[leaf])] = leaf
    for key, row in slots.items():
        if key is None:
            continue
        if key[0] == "bus voltage":
            rows[2, loose[key[1:]]] = row
        else:
            rows[kinds[key[0]], tree.injection_leaf[key[1]]] = row
    return rows


def _angles(angle: ArrayLike | None, n_scenario: int) -> tuple[FloatArray, FloatArray]:
    turn = PHASE_TURN if angle is None else np.exp(1j * np.asarray(angle, float))
    turn = turn[:, None] if turn.ndim == 1 else turn
    full = np.broadcast_to(turn, (3, n_scenario))
    return np.ascontiguousarray(full.real), np.ascontiguousarray(full.imag)
