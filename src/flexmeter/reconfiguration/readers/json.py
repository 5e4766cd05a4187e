"""The project's own JSON for feeder networks (fields: docs/methods/reconfiguration.md)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from flexmeter.errors import InputError
from flexmeter.reconfiguration.network import FeederNetwork, build_network

Id = int | str


class BusRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bus: consumption [kW, kvar], nominal voltage [kV] where it is not that of the file, shunts [S]."""

    id: Id
    p_kw: float = 0.0
    q_kvar: float = 0.0
    vn_kv: float | None = None
    g_s: float = 0.0
    b_s: float = 0.0


class BranchRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A branch: ends, impedance [ohm], status (1 = closed), rating [A], whether it may be operated."""

    id: Id
    f: Id
    t: Id
    r: float
    x: float
    status: int = 1
    amp: float | None = None
    switchable: int = 1
    kind: str = "line"
    charging_s: float = 0.0
    ratio: float = 1.0


class NetworkRecord(msgspec.Struct, frozen=True):
    """A file: nominal voltage [kV], substation buses and their voltage [pu], buses and branches."""

    name: str
    base_kv: float
    slack: Id | list[Id]
    buses: list[BusRecord]
    branches: list[BranchRecord]
    vslack: float = 1.0
    source: str = ""
    licence: str = ""


def read_json(path: Path) -> FeederNetwork:
    """Read a network.

    Raises
    ------
    InputError
        Not a readable file, not JSON, or a field is missing or has the wrong type (named).
    GridError
        The values do not make a network.
    """
    try:
        record = msgspec.json.decode(path.read_bytes(), type=NetworkRecord)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    return from_record(record)


def from_record(record: NetworkRecord) -> FeederNetwork:
    """Build the network of a decoded file."""
    slack = record.slack if isinstance(record.slack, list) else [record.slack]
    nominal = np.array([(bus.vn_kv or record.base_kv) * 1e3 for bus in record.buses])
    position = {str(bus.id): i for i, bus in enumerate(record.buses)}
    fed = [position[str(bus)] for bus in slack if str(bus) in position]
    return build_network(
        name=record.name,
        bus_ids=[str(bus.id) for bus in record.buses],
        branch_ids=[str(branch.id) for branch in record.branches],
        from_bus=[str(branch.f) for branch in record.branches],
        to_bus=[str(branch.t) for branch in record.branches],
        r_ohm=[branch.r for branch in record.branches],
        x_ohm=[branch.x for branch in record.branches],
        nominal_voltage_v=nominal,
        slack_buses=[str(bus) for bus in slack],
        slack_voltage_v=record.vslack * nominal[fed] if len(fed) == len(slack) else None,
        p_w=[bus.p_kw * 1e3 for bus in record.buses],
        q_var=[bus.q_kvar * 1e3 for bus in record.buses],
        closed=[branch.status != 0 for branch in record.branches],
        switchable=[branch.switchable != 0 for branch in record.branches],
        rated_current_a=[branch.amp or np.nan for branch in record.branches],
        kind=[branch.kind for branch in record.branches],
        charging_s=[branch.charging_s for branch in record.branches],
        ratio=[branch.ratio for branch in record.branches],
        shunt_g_s=[bus.g_s for bus in record.buses],
        shunt_b_s=[bus.b_s for bus in record.buses],
    )


def write_json(network: FeederNetwork, path: Path) -> None:
    """Write a network so that `read_json` returns it again; all substations must have one voltage [pu]."""
    voltage = np.unique(network.slack_voltage_v / network.nominal_voltage_v[network.slack_buses])
    if len(voltage) > 1:
        raise InputError(f"{network.name}: substations with different voltages do not fit the file format")
    n = network
    bus_columns = (n.p_w / 1e3, n.q_var / 1e3, n.nominal_voltage_v / 1e3, n.shunt_g_s, n.shunt_b_s)
    rated = [None if np.isnan(value) else value for value in n.rated_current_a.tolist()]
    branch_columns = (n.r_ohm.tolist(), n.x_ohm.tolist(), n.closed.astype(int).tolist(), rated)
    more_columns = (n.switchable.astype(int).tolist(), n.kind, n.charging_s.tolist(), n.ratio.tolist())
    start, end = ([n.bus_ids[i] for i in ends] for ends in (n.from_bus, n.to_bus))
    record = NetworkRecord(
        name=n.name,
        base_kv=float(n.nominal_voltage_v[0] / 1e3),
        slack=[n.bus_ids[i] for i in n.slack_buses],
        vslack=float(voltage[0]),
        buses=[BusRecord(*row) for row in zip(n.bus_ids, *(c.tolist() for c in bus_columns), strict=True)],
        branches=[
            BranchRecord(*row) for row in zip(n.branch_ids, start, end, *branch_columns, *more_columns, strict=True)
        ],
    )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
