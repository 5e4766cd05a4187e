"""What an estimator takes from and gives to its neighbours, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from flexmeter.estimation.layout import Layout
from flexmeter.estimation.root import PRIOR
from flexmeter.powerflow.lanes import ComplexArray, FloatArray, IntArray
from flexmeter.powerflow.network import Network
from flexmeter.powerflow.tree import Tree


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
    objective : (n_scenario,) J, the weighted sum of squared residuals (forecasts of missing readings included)
    degrees_of_freedom : (n_scenario,) readings minus states
    iterations : (n_scenario,) Gauss-Newton steps, -1 where not converged
    head_observable : (3, n_scenario) whether any reading tells the magnitude of a head voltage
    aggregate_covariance : (n_aggregate, 9, 9, n_scenario) joint covariance of |V|, P, Q at each aggregate
    spine_v, edge_a, aggregate_a : complex voltages, edge and leaf currents, aggregate currents of the reduced tree
    joint_covariance : (n, n, n_scenario) of what was given as `joint`, in its order
    sigma_losses_w : (n_scenario,) standard deviation of `losses_w`, empty if it was not asked for [W]
    """

    layout: Layout
    voltage_v: ComplexArray
    sigma_voltage_v: FloatArray
    objective: FloatArray
    degrees_of_freedom: IntArray
    iterations: IntArray
    head_observable: np.ndarray
    aggregate_covariance: FloatArray
    spine_v: ComplexArray
    edge_a: ComplexArray
    aggregate_a: ComplexArray
    _left_out: FloatArray = field(repr=False)
    _leaf_sigma: FloatArray = field(repr=False)
    _flow_sigma: FloatArray = field(repr=False)
    _head_covariance: FloatArray = field(repr=False)
    joint_covariance: FloatArray = field(repr=False)
    sigma_losses_w: FloatArray = field(repr=False)

    @property
    def network(self) -> Network:
        """The network that was estimated."""
        return self.layout.network

    @property
    def tree(self) -> Tree:
        """Its reduced tree."""
        return self.layout.tree

    @property
    def converged(self) -> np.ndarray:
        """(n_scenario,) whether the iteration reached its tolerance."""
        return np.asarray(self.iterations >= 0)

    @cached_property
    def observable(self) -> np.ndarray:
        """(n_node, n_scenario) whether any voltage reading tells a node's voltage: sigma below half the prior's."""
        nominal = self.network.nominal_v[self.network.node_bus][:, None]
        return np.asarray(self.sigma_voltage_v < PRIOR / 2 * nominal)

    def unobservable_nodes(self, scenario: int = 0) -> tuple[tuple[str, str], ...]:
        """(bus, phase) whose voltage no reading tells in a scenario; what rests on forecasts: `observability`."""
        return tuple(self.network.nodes[node] for node in np.flatnonzero(~self.observable[:, scenario]))

    @property
    def status(self) -> tuple[str, ...]:
        """(n_scenario,) `converged`, `partly observable` (a head voltage nothing tells), or `not converged`."""
        seen = np.asarray(self.head_observable.all(axis=0))
        return tuple(
            "not converged" if not done else "converged" if whole else "partly observable"
            for done, whole in zip(self.converged, seen, strict=True)
        )

    @cached_property
    def injection_a(self) -> ComplexArray:
        """(n_injection, n_scenario) complex current drawn by each injection [A], rows as `network.injections`."""
        layout = self.layout
        result = np.empty((len(self.network.injections), self.voltage_v.shape[1]), complex)
        result[layout.load_injections] = self.edge_a[3 * self.tree.n_spine + layout.load_leaves]
        result[layout.aggregate_injections] = self.aggregate_a
        return result

    @cached_property
    def power_va(self) -> ComplexArray:
        """(n_injection, n_scenario) complex power drawn by each injection [VA]."""
        return np.asarray(terminal_voltage(self.network, self.voltage_v) * self.injection_a.conj())

    @cached_property
    def sigma_active_power_w(self) -> FloatArray:
        """(n_injection, n_scenario) standard deviation of the active power [W]."""
        return self._power_sigma(0)

    @cached_property
    def sigma_reactive_power_var(self) -> FloatArray:
        """(n_injection, n_scenario) standard deviation of the reactive power [var]."""
        return self._power_sigma(1)

    def _power_sigma(self, part: int) -> FloatArray:
        layout = self.layout
        result = np.empty((len(self.network.injections), self._leaf_sigma.shape[1]))
        result[layout.load_injections] = self._leaf_sigma[3 * layout.load_leaves + part]
        for k in range(3):
            variance = self.aggregate_covariance[:, 3 + 3 * part + k, 3 + 3 * part + k]
            result[layout.aggregate_injections[k::3]] = np.sqrt(np.maximum(variance, 0))
        return result

    @cached_property
    def head(self) -> FloatArray:
        """(9, n_scenario) |V| [V], P [W], Q [var] of a, b, c at the head bus; nan where nothing observes it."""
        v = self.spine_v[:3]
        s = v * self.edge_a[:3].conj()
        value = np.concatenate([np.abs(v), s.real, s.imag])
        value[:3][~self.head_observable] = np.nan
        return value

    @cached_property
    def head_covariance(self) -> FloatArray:
        """(9, 9, n_scenario) joint covariance of `head`: what an area hands upward."""
        covariance = self._head_covariance.reshape(9, 9, -1).copy()
        if covariance.size and not self.head_observable.all():
            missing = np.zeros((9, covariance.shape[2]), bool)
            missing[:3] = ~self.head_observable
            covariance[missing[:, None] | missing[None]] = np.nan
        return covariance

    @cached_property
    def aggregate(self) -> FloatArray:
        """(n_aggregate, 9, n_scenario) estimate of what each area below reported."""
        v = self.spine_v[self.layout.aggregate_rows]
        s = v * self.aggregate_a.conj()
        shape = (len(self.network.aggregates), 3, self.voltage_v.shape[1])
        return np.concatenate([part.reshape(shape) for part in (np.abs(v), s.real, s.imag)], axis=1)

    @cached_property
    def aggregate_angle_rad(self) -> FloatArray:
        """(n_aggregate, 3, n_scenario) voltage angles at each aggregate's bus: what `source_angle_rad` wants below."""
        shape = (len(self.network.aggregates), 3, self.voltage_v.shape[1])
        return np.asarray(np.angle(self.spine_v[self.layout.aggregate_rows]).reshape(shape))

    @cached_property
    def fitted(self) -> FloatArray:
        """(n_meter, n_scenario) what each meter should have read, rows as the estimator's meters."""
        layout = self.layout
        result = np.empty((layout.n_slot, self.voltage_v.shape[1]))
        rows = layout.leaf_rows
        current = self.edge_a[3 * self.tree.n_spine : 3 * self.tree.n_spine + self.tree.n_leaf]
        voltage = self._leaf_voltage(current)
        power = voltage * current.conj()
        for row, quantity in zip(rows, (power.real, power.imag, np.abs(voltage)), strict=True):
            result[row[row >= 0]] = quantity[row >= 0]
        for k, row in enumerate(layout.flow_row):
            at = 3 * layout.flow_spine[k] + layout.flow_phase[k]
            between = layout.flow_minus[k] >= 0
            v = self.spine_v[at] - (self.spine_v[3 * layout.flow_spine[k] + layout.flow_minus[k]] if between else 0.0)
            result[row] = _edge_value(int(layout.flow_kind[k]), v, layout.flow_sign[k] * self.edge_a[at])
        return result[layout.slot]

    @cached_property
    def left_out(self) -> np.ndarray:
        """(n_meter, n_scenario) whether a magnitude of a current was not used: nothing tells its direction."""
        layout = self.layout
        result = np.zeros((layout.n_slot, self.voltage_v.shape[1]), bool)
        result[layout.flow_row] = self._left_out > 0
        return np.asarray(result[layout.slot])

    @cached_property
    def losses_w(self) -> FloatArray:
        """(n_scenario,) active power lost in lines, transformers and shunts [W], as `PowerFlowResult.losses_w`."""
        tree, n = self.tree, self.voltage_v.shape[1]
        v, j = self.spine_v.reshape(tree.n_spine, 3, n), self.edge_a[: 3 * tree.n_spine].reshape(tree.n_spine, 3, n)
        leaf = self.edge_a[3 * tree.n_spine : 3 * tree.n_spine + tree.n_leaf]
        lost = tree.leaf_z[:, 0] @ (leaf.real**2 + leaf.imag**2)
        for matrix, state in ((tree.impedance, j), (tree.shunt, v)):
            rows = np.flatnonzero(np.any(matrix, axis=(1, 2)))
            as_complex = matrix[rows, 0::2, 0::2] + 1j * matrix[rows, 1::2, 0::2]
            lost += np.einsum("kps,kpq,kqs->s", state[rows].conj(), as_complex, state[rows]).real
        return np.asarray(lost)

    @cached_property
    def sigma_fitted(self) -> FloatArray:
        """(n_meter, n_scenario) standard deviation of `fitted`."""
        layout = self.layout
        result = np.empty((layout.n_slot, self._leaf_sigma.shape[1]))
        for part, row in enumerate(layout.leaf_rows):
            result[row[row >= 0]] = self._leaf_sigma[3 * np.flatnonzero(row >= 0) + part]
        result[layout.flow_row] = self._flow_sigma
        return result[layout.slot]

    def _leaf_voltage(self, current: ComplexArray) -> ComplexArray:
        tree = self.tree
        first = 3 * np.repeat(np.arange(tree.n_spine), np.diff(tree.first_leaf))
        voltage = self.spine_v[first + tree.leaf_plus]
        between = tree.leaf_minus >= 0
        voltage[between] -= self.spine_v[(first + tree.leaf_minus)[between]]
        return np.asarray(voltage - (tree.leaf_z[:, :1] + 1j * tree.leaf_z[:, 1:]) * current)


def terminal_voltage(network: Network, voltage_v: ComplexArray) -> ComplexArray:
    """Return (n_injection, n_scenario) voltages between the terminals of every injection from node voltages [V]."""
    plus, minus = network.injection_nodes
    voltage = voltage_v[plus]
    between = minus >= 0
    if between.any():
        voltage[between] -= voltage_v[minus[between]]
    return voltage


def _edge_value(kind: int, v: ComplexArray, current: ComplexArray) -> FloatArray:
    """Return what a meter on an edge reads, see `flow`; the current in the direction of the branch."""
    power = v * current.conj()
    kinds = (
        power.real,
        power.imag,
        np.abs(current),
        current.real,
        current.imag,
        np.angle(current),
        v.real,
        v.imag,
        np.angle(v),
    )
    return np.asarray(kinds[kind])
