"""Independent truth for the tests: the same state solved by pandapower's Newton."""

from __future__ import annotations

import warnings

import numpy as np

from flexmeter.reconfiguration import FeederNetwork

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pandapower as pp


def newton_flow(network: FeederNetwork, closed) -> tuple[float, np.ndarray]:
    """Losses [W] and voltage magnitudes [pu] of one state; branches as impedance elements on a 1 MVA base."""
    net = pp.create_empty_network(sn_mva=1.0)
    for i, v in enumerate(network.nominal_voltage_v):
        pp.create_bus(net, vn_kv=v / 1e3, name=network.bus_ids[i], index=i)
    for bus, v in zip(network.slack_buses, network.slack_voltage_v, strict=True):
        pp.create_ext_grid(net, int(bus), vm_pu=v / network.nominal_voltage_v[bus])
    for i in range(network.bus_count):
        pp.create_load(net, i, network.p_w[i] / 1e6, network.q_var[i] / 1e6)
        if network.shunt_g_s[i] or network.shunt_b_s[i]:
            v2 = network.nominal_voltage_v[i] ** 2 / 1e6
            pp.create_shunt(net, i, p_mw=network.shunt_g_s[i] * v2, q_mvar=-network.shunt_b_s[i] * v2)
    _branches(pp, net, network, closed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pp.runpp(net, tolerance_mva=1e-10, init="flat", calculate_voltage_angles=True, numba=False)
    supplied = net.res_ext_grid.p_mw.sum() * 1e6
    drawn = network.p_w.sum() + (net.res_shunt.p_mw.sum() * 1e6 if len(net.shunt) else 0.0)
    return supplied - drawn, net.res_bus.vm_pu.to_numpy()


def _branches(pp, net, network: FeederNetwork, closed) -> None:
    base = network.nominal_voltage_v[network.to_bus] ** 2 / 1e6
    for b in np.flatnonzero(closed):
        start, end = int(network.from_bus[b]), int(network.to_bus[b])
        r, x = network.r_ohm[b] / base[b], network.x_ohm[b] / base[b]
        if network.ratio[b] != 1.0:
            rated = network.nominal_voltage_v
            pp.create_transformer_from_parameters(
                net, start, end, sn_mva=1.0, vn_hv_kv=rated[start] * network.ratio[b] / 1e3,
                vn_lv_kv=rated[end] / 1e3, vkr_percent=r * 100, vk_percent=np.hypot(r, x) * 100,
                pfe_kw=0.0, i0_percent=0.0,
            )  # fmt: skip
            continue
        charging = network.charging_s[b] * base[b] / 2
        pp.create_impedance(
            net, start, end, rft_pu=r, xft_pu=x, sn_mva=1.0, bf_pu=charging, bt_pu=charging, gf_pu=0.0, gt_pu=0.0
        )
