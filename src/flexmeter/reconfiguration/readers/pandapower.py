"""pandapower networks, from their JSON files; pandapower itself is an optional dependency."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flexmeter.errors import InputError
from flexmeter.reconfiguration.network import FeederNetwork, build_network

if TYPE_CHECKING:
    from pandapower import pandapowerNet

SUPPORTED = {"bus", "line", "trafo", "switch", "ext_grid", "load", "sgen", "shunt", "impedance"}
ELEMENTS = {"trafo3w", "gen", "ward", "xward", "dcline", "motor", "asymmetric_load", "storage", "tcsc", "svc", "vsc"}


def read_pandapower(path: Path) -> FeederNetwork:
    """Read a pandapower JSON file; see `from_pandapower`.

    Raises
    ------
    InputError
        pandapower is not installed, the file is not one of its networks, or it holds elements that are not read.
    GridError
        The values do not make a network.
    """
    try:
        import pandapower  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        raise InputError(f"{path}: reading pandapower files needs pandapower (pip install pandapower)") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = pandapower.from_json(str(path))
    if not hasattr(net, "bus"):
        raise InputError(f"{path}: not a pandapower network")
    return from_pandapower(net, path.stem)


def from_pandapower(net: pandapowerNet, name: str = "network") -> FeederNetwork:
    """Convert a pandapower network.

    Buses joined by closed bus-bus switches stay apart, joined by a switchable branch without impedance. A line or
    transformer is switchable when a switch sits on it, or when none in the network has one; it is open when out of
    service or a switch on it is open. External grids are the substations.
    """
    unread = sorted(table for table in ELEMENTS if table in net and len(net[table]))
    if unread:
        raise InputError(f"{name}: elements that are not read: {', '.join(unread)}")
    net_bus = net.bus[net.bus.in_service]
    ids = [str(index) for index in net_bus.index]
    nominal = dict(zip(net_bus.index, net_bus.vn_kv * 1e3, strict=True))
    power = {index: 0j for index in net_bus.index}
    for table, sign in (("load", 1.0), ("sgen", -1.0)):
        for row in net[table][net[table].in_service].itertuples():
            power[row.bus] += sign * row.scaling * complex(row.p_mw, row.q_mvar) * 1e6
    shunt = {index: 0j for index in net_bus.index}
    for row in net.shunt[net.shunt.in_service].itertuples():
        shunt[row.bus] += row.step * complex(row.p_mw, -row.q_mvar) * 1e6 / (row.vn_kv * 1e3) ** 2
    grids = net.ext_grid[net.ext_grid.in_service]
    branches = [*_lines(net), *_transformers(net), *_impedances(net), *_couplers(net)]
    return build_network(
        name=name,
        bus_ids=ids,
        branch_ids=[branch[0] for branch in branches],
        from_bus=[str(branch[1]) for branch in branches],
        to_bus=[str(branch[2]) for branch in branches],
        r_ohm=[branch[3].real for branch in branches],
        x_ohm=[branch[3].imag for branch in branches],
        nominal_voltage_v=list(nominal.values()),
        slack_buses=[str(bus) for bus in grids.bus],
        slack_voltage_v=[row.vm_pu * nominal[row.bus] for row in grids.itertuples()],
        p_w=[value.real for value in power.values()],
        q_var=[value.imag for value in power.values()],
        charging_s=[branch[4] for branch in branches],
        ratio=[branch[5] for branch in branches],
        rated_current_a=[branch[6] for branch in branches],
        closed=[branch[7] for branch in branches],
        switchable=[branch[8] for branch in branches],
        kind=[branch[9] for branch in branches],
        shunt_g_s=[value.real for value in shunt.values()],
        shunt_b_s=[value.imag for value in shunt.values()],
    )


Branch = tuple[str, int, int, complex, float, float, float, bool, bool, str]


def _switch_state(net: pandapowerNet, kind: str, element: int) -> tuple[bool, bool]:
    """Return whether all switches on an element are closed and whether it may be operated."""
    any_switch = net.switch.et.isin(["l", "t"]).any()
    here = net.switch[(net.switch.et == kind) & (net.switch.element == element)]
    return bool(here.closed.all()), bool(len(here)) or not any_switch


def _lines(net: pandapowerNet) -> list[Branch]:
    out: list[Branch] = []
    for row in net.line.itertuples():
        closed, switchable = _switch_state(net, "l", row.Index)
        z = complex(row.r_ohm_per_km, row.x_ohm_per_km) * row.length_km / row.parallel
        charging = 2e-9 * np.pi * net.f_hz * row.c_nf_per_km * row.length_km * row.parallel
        rated = row.max_i_ka * 1e3 * getattr(row, "df", 1.0) * row.parallel
        state = bool(row.in_service) and closed
        name = f"line_{row.Index}"
        out.append((name, row.from_bus, row.to_bus, z, charging, 1.0, rated or np.nan, state, switchable, "line"))
    return out


def _transformers(net: pandapowerNet) -> list[Branch]:
    out: list[Branch] = []
    for row in net.trafo.itertuples():
        closed, switchable = _switch_state(net, "t", row.Index)
        base = row.vn_lv_kv**2 / row.sn_mva / row.parallel
        z = complex(row.vkr_percent, np.sqrt(row.vk_percent**2 - row.vkr_percent**2)) / 100 * base
        steps = np.nan_to_num(row.tap_pos - row.tap_neutral) * np.nan_to_num(row.tap_step_percent) / 100
        high, low = row.vn_hv_kv, row.vn_lv_kv
        high, low = (high * (1 + steps), low) if row.tap_side != "lv" else (high, low * (1 + steps))
        ratio = high / net.bus.vn_kv[row.hv_bus] / (low / net.bus.vn_kv[row.lv_bus])
        rated = row.sn_mva * 1e3 * row.parallel / (np.sqrt(3) * net.bus.vn_kv[row.lv_bus])
        state = bool(row.in_service) and closed
        name = f"trafo_{row.Index}"
        out.append((name, row.hv_bus, row.lv_bus, z, 0.0, ratio, rated, state, switchable, "transformer"))
    return out


def _impedances(net: pandapowerNet) -> list[Branch]:
    out: list[Branch] = []
    for row in net.impedance.itertuples():
        z = complex(row.rft_pu, row.xft_pu) * net.bus.vn_kv[row.to_bus] ** 2 / row.sn_mva
        name, state = f"impedance_{row.Index}", bool(row.in_service)
        out.append((name, row.from_bus, row.to_bus, z, 0.0, 1.0, np.nan, state, False, "line"))
    return out


def _couplers(net: pandapowerNet) -> list[Branch]:
    out: list[Branch] = []
    for row in net.switch[net.switch.et == "b"].itertuples():
        name, z = f"switch_{row.Index}", 0j
        out.append((name, row.bus, row.element, z, 0.0, 1.0, np.nan, bool(row.closed), True, "switch"))
    return out
