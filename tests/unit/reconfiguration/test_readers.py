from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from flexmeter.errors import GridError, InputError
from flexmeter.reconfiguration import (
    Budget,
    FeederNetwork,
    example,
    network_from_grid,
    radial_flow,
    read_network,
    search,
    switch_vector,
    write_json,
)
from flexmeter.reconfiguration.readers import read_loads, read_matpower
from flexmeter.scenario.reference_grid import reference_grid

from .conftest import CASES

MATPOWER = """function mpc = three
mpc.version = '2';
mpc.baseMVA = 50/5;
%	bus_i	type	Pd	Qd	Gs	Bs	area	Vm	Va	baseKV	zone	Vmax	Vmin ...
mpc.bus = [ %% kW here
	1	3	0	0	0	0	1	1	0	12.66	1	1	1;
	2	1	100	60	0	0	1	1	0	12.66	1	1.1	0.9
	3	1	200	-20	0	0.1	1	1	0	12.66	1	1.1	0.9;
];
mpc.gen = [
	1	0	0	10	-10	1.02	100	1	10	0	0	0	0	0	0	0	0	0	0	0	0;
	2	0.05	0	10	-10	1	100	1	10	0	0	0	0	0	0	0	0	0	0	0	0;
];
mpc.branch = [  %% ohms here
	1	2	0.0922	0.0470	0	5	0	0	0	0	1	-360	360;
	2	3	0.4930	0.2511	0	0	0	0	0	0	1	-360	360;
	3	1	0.3660	0.1864	0	0	0	0	0	0	0	-360	360;
];
mpc.gencost = [
	2	0	0	3	0	20	0;
];
%% convert ... units
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...
    VA, BASE_KV] = idx_bus;
Vbase = mpc.bus(1, BASE_KV) * 1e3;      %% in Volts
Sbase = mpc.baseMVA * 1e6;              %% in VA
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
"""


def test_matpower_conversions(tmp_path: Path) -> None:
    path = tmp_path / "three.m"
    path.write_text(MATPOWER)
    network = read_network(path)
    np.testing.assert_allclose(network.r_ohm, [0.0922, 0.4930, 0.3660])
    np.testing.assert_allclose(network.p_w, [0, 50e3, 200e3])
    np.testing.assert_allclose(network.q_var, [0, 60e3, -20e3])
    assert network.open_branches == ("3",)
    assert network.slack_voltage_v[0] == pytest.approx(1.02 * 12660)
    assert network.rated_current_a[0] == pytest.approx(5e6 / np.sqrt(3) / 12660)
    assert np.isnan(network.rated_current_a[1])
    assert network.shunt_b_s[2] == pytest.approx(0.1e6 / 12660**2)


@pytest.mark.parametrize(
    "statements",
    [
        "mpc.bus(:, 3:4) = mpc.bus(:, 3:4) .* 1e-3;",
        "mpc.bus(:, [3 4]) = mpc.bus(:,[3,4])/1000;",
        "k = cos(acos(1e-3)); mpc.bus(:, PD) = mpc.bus(:, PD) * k;\nmpc.bus( :, 4 ) = mpc.bus(:,QD) / (1 / k);",
    ],
)
def test_matpower_conversions_are_written_in_many_ways(tmp_path: Path, statements: str) -> None:
    path = tmp_path / "three.m"
    old = "mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;"
    path.write_text(MATPOWER.replace(old, statements))
    network = read_network(str(path))
    np.testing.assert_allclose(network.p_w, [0, 50e3, 200e3])
    np.testing.assert_allclose(network.q_var, [0, 60e3, -20e3])


def test_matpower_apparent_powers_with_a_power_factor(tmp_path: Path) -> None:
    path = tmp_path / "three.m"
    more = "pf = 0.85;\nmpc.bus(:, QD) = mpc.bus(:, PD) * sin(acos(pf));\nmpc.bus(:, PD) = mpc.bus(:, PD) * pf;\n"
    path.write_text(MATPOWER + more)
    network = read_network(path)
    assert network.p_w[2] == pytest.approx(0.85 * 200e3)
    assert network.q_var[2] == pytest.approx(np.sqrt(1 - 0.85**2) * 200e3)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;", "mpc.bus(:, PD) = sin(mpc.bus(:, QD));", "not"),
        ("mpc.bus(:, [PD, QD]) =", "mpc.bus(:, [PD, QT]) =", "not understood"),
        ("mpc.bus(:, [PD, QD]) =", "mpc.bus(:, 30:31) =", "not understood"),
        ("0	12.66	1	1	1;", "0	0	1	1	1;", "BASE_KV"),
        ("mpc.baseMVA = 50/5;", "", "baseMVA"),
        ("0.4930", "0.49e", "is not a number"),
        ("0.4930", "-0.4930", "r_ohm"),
        ("	2	3	0.4930", "	2	9	0.4930", "does not exist"),
        ("mpc.gen = [", "mpc.generators = [", "mpc.gen"),
        ("	2	0.05", "	7	0.05", "bus 7"),
    ],
)
def test_matpower_errors_name_the_place(tmp_path: Path, old, new, text) -> None:
    path = tmp_path / "three.m"
    assert old in MATPOWER
    path.write_text(MATPOWER.replace(old, new))
    with pytest.raises(InputError, match=text):
        read_matpower(path)


def test_json_round_trip(tmp_path: Path, detailed: FeederNetwork) -> None:
    path = tmp_path / "network.json"
    write_json(detailed, path)
    again = read_network(path)
    assert radial_flow(again).losses_w == pytest.approx(radial_flow(detailed).losses_w, rel=1e-12)
    assert again.open_branches == detailed.open_branches


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.pop("base_kv"), "base_kv"),
        (lambda d: d["branches"][3].update(r="short"), r"branches\[3\].r|r`"),
        (lambda d: d["branches"][3].update(r=-1.0), "branch 4 r_ohm"),
        (lambda d: d["branches"][3].update(t=99), "does not exist"),
        (lambda d: d["branches"][3].update(id=1), "more than once"),
        (lambda d: d.update(slack=77), "slack bus 77"),
        (lambda d: d["buses"].append({"id": 34}), "bus 34 connection"),
    ],
)
def test_json_errors_name_the_field(tmp_path: Path, change, text) -> None:
    content = json.loads((CASES / "baran33.json").read_text())
    change(content)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=text):
        read_network(path)


def test_files_that_are_no_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        read_network(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(InputError, match="neither"):
        read_network(tmp_path / "text.json")
    with pytest.raises(InputError, match="expected one of"):
        example("unknown")


def test_loads_from_csv(tmp_path: Path, baran33: FeederNetwork) -> None:
    path = tmp_path / "loads.csv"
    path.write_text("bus,p_kw,q_kvar\n2,50,20\n")
    network = read_loads(baran33, path)
    assert (network.p_w[1], network.q_var[1]) == (50e3, 20e3)
    assert network.p_w[2] == baran33.p_w[2]
    for wrong, text in (
        ("bus,p\n2,5\n", "expected bus"),
        ("bus,p_kw,q_kvar\n99,1,1\n", "line 2"),
        ("bus,p_kw,q_kvar\n2,x,1\n", "numbers"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=text):
            read_loads(baran33, path)


def test_pandapower_networks_have_pandapowers_losses(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandapower as pp
        import pandapower.networks as networks

        net = networks.case33bw()
        pp.to_json(net, str(tmp_path / "case33.json"))
        cigre = networks.create_cigre_network_mv()
        cigre.line["c_nf_per_km"] = 0.0  # pandapower charges lines that are open at one end, the feeder model does not
        pp.to_json(cigre, str(tmp_path / "cigre.json"))
        pp.runpp(cigre, tolerance_mva=1e-10)
        losses_w = (cigre.res_line.pl_mw.sum() + cigre.res_trafo.pl_mw.sum()) * 1e6
    assert search(read_network(tmp_path / "case33.json")).losses_w / 1e3 == pytest.approx(139.551, abs=0.001)
    network = read_network(tmp_path / "cigre.json")
    assert radial_flow(network).losses_w == pytest.approx(losses_w, rel=1e-6)
    assert len(network.open_branches) == network.tie_count == 3


def test_the_reference_grid_becomes_the_ring(ring: FeederNetwork) -> None:
    grid = reference_grid()
    network = network_from_grid(grid)
    assert network.bus_count == 13
    assert network.open_branches == ("line_7",)
    np.testing.assert_allclose(network.r_ohm, ring.r_ohm, rtol=1e-9)
    np.testing.assert_allclose(network.x_ohm, ring.x_ohm, rtol=1e-9)
    found = search(network, budget=Budget(rounds=2))
    vector = switch_vector(grid, network, found.closed)
    assert len(vector) == len(grid.switches)
    assert vector.count(False) == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"r_ohm": [1.0, -1.0, 1.0]}, "r_ohm"),
        ({"x_ohm": [1.0, np.nan, 1.0]}, "x_ohm"),
        ({"to_bus": ["a", "b", "b"]}, "same bus"),
        ({"slack_buses": []}, "substation"),
        ({"closed": [True, True, True], "switchable": False}, "not switchable"),
        ({"p_w": [0.0, np.inf, 0.0]}, "finite"),
        ({"rated_current_a": -5.0}, "rated_current_a"),
        ({"to_bus": ["a", "c", "s"]}, "does not exist"),
    ],
)
def test_bad_networks_are_refused_with_names(fields, text) -> None:
    from flexmeter.reconfiguration import build_network

    good = {
        "bus_ids": ["s", "a", "b"],
        "branch_ids": ["sa", "ab", "bs"],
        "from_bus": ["s", "a", "b"],
        "to_bus": ["a", "b", "s"],
        "r_ohm": 1.0,
        "x_ohm": 1.0,
        "nominal_voltage_v": 1e4,
        "slack_buses": ["s"],
    }
    build_network(**good)
    with pytest.raises(GridError, match=text):
        build_network(**{**good, **fields})


def test_a_network_without_ties_has_one_state() -> None:
    from flexmeter.reconfiguration import build_network

    network = build_network(
        bus_ids=["s", "a"], branch_ids=["sa"], from_bus=["s"], to_bus=["a"], r_ohm=1.0, x_ohm=1.0,
        nominal_voltage_v=1e4, slack_buses=["s"], p_w=[0.0, 1e5],
    )  # fmt: skip
    found = search(network)
    assert found.open_branches == ()
    assert found.losses_w == pytest.approx(radial_flow(network).losses_w)


def test_a_tie_between_substations_stays_open() -> None:
    from flexmeter.reconfiguration import build_network

    network = build_network(
        bus_ids=["s", "t", "a"], branch_ids=["sa", "ta", "st"], from_bus=["s", "t", "s"], to_bus=["a", "a", "t"],
        r_ohm=[1.0, 0.5, 0.1], x_ohm=0.1, nominal_voltage_v=1e4, slack_buses=["s", "t"], p_w=[0.0, 0.0, 1e6],
        closed=[True, True, True],
    )  # fmt: skip
    assert search(network).open_branches == ("sa", "st")
