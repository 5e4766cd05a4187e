"""The feeder network of the search: a balanced single-phase equivalent in plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flexmeter.errors import Finding, GridError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

BASE_VA = 1e6


class Feeder(NamedTuple):
    """A `FeederNetwork` in per unit (1 MVA, nominal voltages) as the kernels read it.

    `ptr`, `neighbour`, `via` list the neighbours of every bus and the branch that leads there.
    """

    ptr: IntArray
    neighbour: IntArray
    via: IntArray
    from_bus: IntArray
    to_bus: IntArray
    r: FloatArray
    x: FloatArray
    ratio: FloatArray
    charging: FloatArray
    rated: FloatArray
    switchable: BoolArray
    slack: BoolArray
    slack_v: FloatArray
    g: FloatArray
    b: FloatArray


@dataclass(frozen=True, eq=False)
class FeederNetwork:
    """Medium-voltage network as one phase of a balanced system; build it with `build_network`.

    Attributes
    ----------
    bus_ids, branch_ids : names, n buses and m branches
    nominal_voltage_v : (n,) line to line [V]
    p_w, q_var : (n,) three-phase consumption at each bus [W, var]; generation is negative
    slack_buses : (s,) indices of the buses fed by an HV/MV substation
    slack_voltage_v : (s,) their line-to-line voltage [V]
    from_bus, to_bus : (m,) bus indices
    r_ohm, x_ohm : (m,) series impedance, referred to the to-bus [ohm]
    charging_s : (m,) total line charging susceptance [S], present while the branch is closed
    ratio : (m,) off-nominal turns ratio at the from-bus, 1 for lines
    rated_current_a : (m,) at the to-bus, nan where there is no rating [A]
    switchable : (m,) may be operated; the others keep their status for ever
    closed : (m,) the switch status vector
    kind : (m,) "line", "transformer" or "switch"
    shunt_g_s, shunt_b_s : (n,) constant admittance to earth [S], capacitors positive
    """

    name: str
    bus_ids: tuple[str, ...]
    nominal_voltage_v: FloatArray
    p_w: FloatArray
    q_var: FloatArray
    slack_buses: IntArray
    slack_voltage_v: FloatArray
    branch_ids: tuple[str, ...]
    from_bus: IntArray
    to_bus: IntArray
    r_ohm: FloatArray
    x_ohm: FloatArray
    charging_s: FloatArray
    ratio: FloatArray
    rated_current_a: FloatArray
    switchable: BoolArray
    closed: BoolArray
    kind: tuple[str, ...]
    shunt_g_s: FloatArray
    shunt_b_s: FloatArray

    @property
    def bus_count(self) -> int:
        """Number of buses, substations included."""
        return len(self.bus_ids)

    @property
    def branch_count(self) -> int:
        """Number of branches, open and closed."""
        return len(self.branch_ids)

    @property
    def tie_count(self) -> int:
        """Branches that stay open in every radial state: m - n + s (the paper's N_t)."""
        return self.branch_count - self.bus_count + len(self.slack_buses)

    @property
    def open_branches(self) -> tuple[str, ...]:
        """Names of the open branches, in the order of the branches."""
        return self.names_of(~self.closed)

    @property
    def closable(self) -> BoolArray:
        """Branches that may carry current in some state: all but the permanently open ones."""
        return self.closed | self.switchable

    @cached_property
    def feeder(self) -> Feeder:
        """The per-unit arrays of the kernels; computed once, shared by copies with other loads."""
        return _per_unit(self)

    @property
    def s_pu(self) -> tuple[FloatArray, FloatArray]:
        """Bus powers (P, Q) on the base of the kernels."""
        return self.p_w / BASE_VA, self.q_var / BASE_VA

    def names_of(self, mask: BoolArray) -> tuple[str, ...]:
        """Return the names of the branches selected by `mask`."""
        return tuple(self.branch_ids[i] for i in np.flatnonzero(mask))

    def with_power(self, p_w: ArrayLike, q_var: ArrayLike) -> FeederNetwork:
        """Return the same network with other bus powers [W, var]."""
        p = np.ascontiguousarray(p_w, dtype=np.float64)
        q = np.ascontiguousarray(q_var, dtype=np.float64)
        if p.shape != (self.bus_count,) or q.shape != p.shape:
            raise ValueError(f"powers have shapes {p.shape}, {q.shape}, expected ({self.bus_count},)")
        if not (np.isfinite(p).all() and np.isfinite(q).all()):
            raise GridError([Finding("bus", (), "p_w, q_var", "powers must be finite")], self.name)
        return self._changed(p_w=p, q_var=q)

    def with_closed(self, closed: ArrayLike) -> FeederNetwork:
        """Return the same network with another switch status vector."""
        vector = np.ascontiguousarray(closed, dtype=np.bool_)
        if vector.shape != (self.branch_count,):
            raise ValueError(f"switch vector has shape {vector.shape}, expected ({self.branch_count},)")
        moved = self.names_of((vector != self.closed) & ~self.switchable)
        if moved:
            raise GridError([Finding("branch", moved, "closed", "is not switchable")], self.name)
        return self._changed(closed=vector)

    def with_open(self, open_branches: Sequence[str]) -> FeederNetwork:
        """Return the same network with exactly these branches open."""
        return self.with_closed(self.closed_vector(open_branches))

    def closed_vector(self, open_branches: Sequence[str]) -> BoolArray:
        """Return the switch status vector in which exactly these branches are open."""
        position = {name: i for i, name in enumerate(self.branch_ids)}
        unknown = [name for name in open_branches if name not in position]
        if unknown:
            raise GridError([Finding("branch", tuple(unknown), "id", "does not exist")], self.name)
        vector = np.ones(self.branch_count, dtype=np.bool_)
        vector[[position[name] for name in open_branches]] = False
        return vector

    def _changed(self, **fields: FloatArray | BoolArray) -> FeederNetwork:
        # A shallow copy keeps the per-unit arrays: neither loads nor switch states enter them.
        other = copy(self)
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other


def build_network(
    *,
    bus_ids: Sequence[str],
    branch_ids: Sequence[str],
    from_bus: Sequence[str],
    to_bus: Sequence[str],
    r_ohm: ArrayLike,
    x_ohm: ArrayLike,
    nominal_voltage_v: ArrayLike,
    slack_buses: Sequence[str],
    p_w: ArrayLike = 0.0,
    q_var: ArrayLike = 0.0,
    slack_voltage_v: ArrayLike | None = None,
    closed: ArrayLike = True,
    switchable: ArrayLike = True,
    rated_current_a: ArrayLike = np.nan,
    charging_s: ArrayLike = 0.0,
    ratio: ArrayLike = 1.0,
    kind: Sequence[str] = (),
    shunt_g_s: ArrayLike = 0.0,
    shunt_b_s: ArrayLike = 0.0,
    name: str = "network",
) -> FeederNetwork:
    """Build and validate a network from names and arrays; scalars count for all elements.

    Zero impedance is allowed (a bus coupler or switch), as are parallel branches, buses without load and several
    substations. A branch between two substations is a tie that stays open.

    Raises
    ------
    GridError
        With every finding: unknown or repeated names, negative resistance, values that are not finite, closed
        branches that join two substations and cannot be opened, loops without a switch, buses that no substation
        can reach.
    """
    n, m = len(bus_ids), len(branch_ids)
    position = {bus: i for i, bus in enumerate(bus_ids)}
    _check_names(name, bus_ids, branch_ids, (from_bus, to_bus), slack_buses)
    nominal = _floats(nominal_voltage_v, n)
    slack = np.array([position[bus] for bus in slack_buses], dtype=np.int64)
    network = FeederNetwork(
        name=name,
        bus_ids=tuple(bus_ids),
        nominal_voltage_v=nominal,
        p_w=_floats(p_w, n),
        q_var=_floats(q_var, n),
        slack_buses=slack,
        slack_voltage_v=nominal[slack] if slack_voltage_v is None else _floats(slack_voltage_v, len(slack)),
        branch_ids=tuple(branch_ids),
        from_bus=np.array([position[bus] for bus in from_bus], dtype=np.int64),
        to_bus=np.array([position[bus] for bus in to_bus], dtype=np.int64),
        r_ohm=_floats(r_ohm, m),
        x_ohm=_floats(x_ohm, m),
        charging_s=_floats(charging_s, m),
        ratio=_floats(ratio, m),
        rated_current_a=_floats(rated_current_a, m),
        switchable=_bools(switchable, m),
        closed=_bools(closed, m),
        kind=tuple(kind) if kind else ("line",) * m,
        shunt_g_s=_floats(shunt_g_s, n),
        shunt_b_s=_floats(shunt_b_s, n),
    )
    _check_values(network)
    _check_reach(network)
    return network


def _floats(values: ArrayLike, count: int) -> FloatArray:
    return np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), (count,)))


def _bools(values: ArrayLike, count: int) -> BoolArray:
    return np.array(np.broadcast_to(np.asarray(values, dtype=np.bool_), (count,)))


def _check_names(
    name: str,
    bus_ids: Sequence[str],
    branch_ids: Sequence[str],
    ends: tuple[Sequence[str], Sequence[str]],
    slack_buses: Sequence[str],
) -> None:
    """Raise `GridError` for repeated or unknown names."""
    findings = []
    known = set(bus_ids)
    for component, ids in (("bus", bus_ids), ("branch", branch_ids), ("slack bus", slack_buses)):
        seen: set[str] = set()
        twice = tuple(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        if twice:
            findings.append(Finding(component, twice, "id", "is used more than once"))
    for field, buses in zip(("from_bus", "to_bus"), ends, strict=True):
        bad = tuple(b for b, end in zip(branch_ids, buses, strict=True) if end not in known)
        if bad:
            findings.append(Finding("branch", bad, field, "names a bus that does not exist"))
    missing = tuple(bus for bus in slack_buses if bus not in known)
    if missing:
        findings.append(Finding("slack bus", missing, "id", "does not exist"))
    if not slack_buses:
        findings.append(Finding("network", (), "slack_buses", "at least one bus must be fed by a substation"))
    if findings:
        raise GridError(findings, name)


def _check_values(network: FeederNetwork) -> None:
    """Raise `GridError` for values that no load flow should see."""
    n = network
    start, end = n.nominal_voltage_v[n.from_bus], n.nominal_voltage_v[n.to_bus]
    line = np.array([kind != "transformer" for kind in n.kind])
    checks: list[tuple[str, BoolArray, str, str]] = [
        ("branch", ~np.isfinite(n.r_ohm) | (n.r_ohm < 0), "r_ohm", "must be finite and not negative"),
        ("branch", ~np.isfinite(n.x_ohm), "x_ohm", "must be finite"),
        ("branch", ~np.isfinite(n.charging_s), "charging_s", "must be finite"),
        ("branch", ~(n.ratio > 0) | ~np.isfinite(n.ratio), "ratio", "must be positive"),
        ("branch", n.rated_current_a <= 0, "rated_current_a", "must be positive, or nan for none"),
        ("branch", n.from_bus == n.to_bus, "to_bus", "both ends are the same bus"),
        ("branch", line & (start != end), "nominal_voltage_v", "line between two voltage levels"),
        (
            "bus",
            ~(n.nominal_voltage_v > 0) | ~np.isfinite(n.nominal_voltage_v),
            "nominal_voltage_v",
            "must be positive",
        ),
        ("bus", ~np.isfinite(n.p_w) | ~np.isfinite(n.q_var), "p_w, q_var", "must be finite"),
        ("bus", ~np.isfinite(n.shunt_g_s) | ~np.isfinite(n.shunt_b_s), "shunt", "must be finite"),
    ]
    findings = [
        Finding(
            what, tuple((n.bus_ids if what == "bus" else n.branch_ids)[i] for i in np.flatnonzero(bad)), field, text
        )
        for what, bad, field, text in checks
        if bad.any()
    ]
    if not (np.isfinite(n.slack_voltage_v) & (n.slack_voltage_v > 0)).all():
        findings.append(Finding("slack bus", (), "slack_voltage_v", "must be positive"))
    if findings:
        raise GridError(findings, n.name)


def _check_reach(network: FeederNetwork) -> None:
    """Raise `GridError` for buses without any way to a substation and for loops nobody can open."""
    findings = []
    reached = merge(network, network.closable)[0]
    root = reached[network.slack_buses[0]]
    lost = tuple(network.bus_ids[i] for i in np.flatnonzero(reached != root))
    if lost:
        findings.append(Finding("bus", lost, "connection", "no substation can reach it"))
    looped = merge(network, network.closed & ~network.switchable)[1]
    if looped:
        text = "closes a loop or joins two substations and is not switchable"
        findings.append(Finding("branch", tuple(network.branch_ids[b] for b in looped), "closed", text))
    if findings:
        raise GridError(findings, network.name)


def merge(network: FeederNetwork, branches: BoolArray) -> tuple[IntArray, list[int]]:
    """Join the ends of the selected branches, all substations being one node.

    Returns
    -------
    group : (n,) a number per bus, equal for buses that are joined
    looped : the selected branches, in order, whose ends had been joined before
    """
    group = list(range(network.bus_count))

    def find(bus: int) -> int:
        while group[bus] != bus:
            group[bus] = group[group[bus]]
            bus = group[bus]
        return bus

    for slack in network.slack_buses[1:].tolist():
        group[find(slack)] = find(int(network.slack_buses[0]))
    looped = []
    starts, ends = network.from_bus.tolist(), network.to_bus.tolist()
    for branch in np.flatnonzero(branches).tolist():
        start, end = find(starts[branch]), find(ends[branch])
        if start == end:
            looped.append(branch)
        else:
            group[end] = start
    return np.array([find(bus) for bus in range(network.bus_count)], dtype=np.int64), looped


def _per_unit(network: FeederNetwork) -> Feeder:
    n, m = network.bus_count, network.branch_count
    ends = np.concatenate([network.from_bus, network.to_bus])
    others = np.concatenate([network.to_bus, network.from_bus])
    order = np.argsort(ends, kind="stable")
    ptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(ends, minlength=n), out=ptr[1:])
    base_v = network.nominal_voltage_v[network.to_bus]
    base_ohm = base_v**2 / BASE_VA
    rated = network.rated_current_a * np.sqrt(3.0) * base_v / BASE_VA
    slack = np.zeros(n, dtype=np.bool_)
    slack[network.slack_buses] = True
    slack_v = np.ones(n)
    slack_v[network.slack_buses] = network.slack_voltage_v / network.nominal_voltage_v[network.slack_buses]
    bus_ohm = network.nominal_voltage_v**2 / BASE_VA
    return Feeder(
        ptr=ptr,
        neighbour=np.ascontiguousarray(others[order]),
        via=np.ascontiguousarray(np.tile(np.arange(m), 2)[order]),
        from_bus=network.from_bus,
        to_bus=network.to_bus,
        r=network.r_ohm / base_ohm,
        x=network.x_ohm / base_ohm,
        ratio=network.ratio,
        charging=network.charging_s * base_ohm,
        rated=np.where(np.isnan(rated), np.inf, rated),
        switchable=network.switchable,
        slack=slack,
        slack_v=slack_v,
        g=network.shunt_g_s * bus_ohm,
        b=network.shunt_b_s * bus_ohm,
    )
