"""Load flow of one state of a feeder network, radial or meshed, as a result with units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import DidNotConverge, NotRadial
from flexmeter.reconfiguration.mesh import branch_currents, mesh_flow, mesh_losses
from flexmeter.reconfiguration.network import (
    BASE_VA,
    BoolArray,
    ComplexArray,
    FeederNetwork,
    FloatArray,
    merge,
)
from flexmeter.reconfiguration.sweep import MAX_SWEEPS, radial_losses


@dataclass(frozen=True, eq=False)
class StateFlow:
    """Load flow of one switch status vector.

    Attributes
    ----------
    closed : (m,) the state
    voltage_pu : (n,) complex, of each bus's nominal voltage; nan where a bus is not fed
    current_a : (m,) complex, at the to-bus, from from-bus to to-bus [A]
    branch_losses_w : (m,) series losses, three phases, equation 1 of the paper [W]
    substation_power_va : (s,) complex power from each substation [VA]
    losses_w : their sum [W]
    """

    closed: BoolArray
    voltage_pu: ComplexArray
    current_a: ComplexArray
    branch_losses_w: FloatArray
    substation_power_va: ComplexArray

    @property
    def losses_w(self) -> float:
        """Total series losses [W]."""
        return float(self.branch_losses_w.sum())


def check_radial(network: FeederNetwork, closed: BoolArray | None = None) -> None:
    """Raise `NotRadial` with the names when the state has a loop or leaves a bus without supply."""
    state = network.closed if closed is None else closed
    group, looped = merge(network, state)
    if looped:
        names = ", ".join(network.branch_ids[b] for b in looped[:6])
        raise NotRadial(f"{network.name}: not radial: closes a loop or joins substations: {names}")
    lost = np.flatnonzero(group != group[network.slack_buses[0]])
    if lost.size:
        names = ", ".join(network.bus_ids[i] for i in lost[:6])
        raise NotRadial(f"{network.name}: not radial: {lost.size} buses without supply: {names}")


def radial_flow(network: FeederNetwork, closed: BoolArray | None = None) -> StateFlow:
    """Solve one radial state (default: the network's own).

    Raises
    ------
    NotRadial
        Loop or unsupplied bus, named.
    DidNotConverge
        The loads cannot be supplied in this state.
    """
    state = network.closed if closed is None else closed
    check_radial(network, state)
    return meshed_flow(network, state)


def meshed_flow(network: FeederNetwork, closed: BoolArray | None = None) -> StateFlow:
    """Solve a state that may have loops; by default with every branch closed that can be (paper, section 5).

    A branch between two substations then carries the balancing current of its two voltages. Buses that are not fed
    get nan and count with neither load nor losses.

    Raises
    ------
    DidNotConverge
        The loads cannot be supplied in this state.
    """
    state = network.closable if closed is None else closed
    feeder = network.feeder
    mesh = mesh_flow(feeder, state, *network.s_pu, False)
    flow = mesh.flow
    if mesh.fed < 0:
        worst = int(np.argmin(np.nan_to_num(np.hypot(flow.v_re, flow.v_im), nan=-1.0)))
        raise DidNotConverge(f"{network.name}: load flow", MAX_SWEEPS, float("nan"), f"bus {network.bus_ids[worst]}")
    j = branch_currents(feeder, mesh)
    voltage = flow.v_re + 1j * flow.v_im
    voltage[mesh.tree.parent == -2] = np.nan
    base_a = BASE_VA / (np.sqrt(3.0) * network.nominal_voltage_v[network.to_bus])
    slack = network.slack_buses
    # The sweep leaves in the substation's entry what it supplies: its own load and its feeders.
    supplied = voltage[slack] * np.conj(flow.j_re[slack] + 1j * flow.j_im[slack])
    return StateFlow(
        closed=np.array(state, dtype=np.bool_),
        voltage_pu=voltage,
        current_a=j * base_a,
        branch_losses_w=feeder.r * np.abs(j) ** 2 * BASE_VA,
        substation_power_va=np.asarray(supplied * BASE_VA, dtype=np.complex128),
    )


def tree_losses(network: FeederNetwork, closed: ArrayLike, p_w: ArrayLike, q_var: ArrayLike) -> FloatArray:
    """Losses of many radial states under many load cases.

    Parameters
    ----------
    closed : (k, m) switch status vectors
    p_w, q_var : (t, n) bus powers [W, var]

    Returns
    -------
    (k, t) losses [W]; infinite where the state is not radial or the load flow does not converge
    """
    states = np.atleast_2d(np.ascontiguousarray(closed, dtype=np.bool_))
    p, q = _cases(p_w), _cases(q_var)
    return np.asarray(radial_losses(network.feeder, states, p, q) * BASE_VA)


def meshed_losses(network: FeederNetwork, p_w: ArrayLike, q_var: ArrayLike) -> FloatArray:
    """Losses with every branch closed, (t,) [W], for (t, n) bus powers: the reference of Fig. 10 of the paper.

    This is a reference and no lower bound: the meshed current divides by |z|, the least losses by r.
    """
    return np.asarray(mesh_losses(network.feeder, network.closable, _cases(p_w), _cases(q_var)) * BASE_VA)


def _cases(power: ArrayLike) -> FloatArray:
    return np.atleast_2d(np.ascontiguousarray(power, dtype=np.float64)) / BASE_VA
