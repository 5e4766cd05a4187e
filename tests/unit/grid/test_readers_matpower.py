import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_checks import largest_difference_pu

from flexmeter.errors import InputError
from flexmeter.grid import encode_grid
from flexmeter.grid.readers import pandapower_voltages, read_any_grid, read_matpower
from flexmeter.powerflow import compile_network, powerflow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pandapower
    from pandapower.networks import case33bw

POST = """
[PQ, PV, REF, NONE, BUS_I, BUS_TYPE, PD, QD, GS, BS, BUS_AREA, VM, ...
    VA, BASE_KV, ZONE, VMAX, VMIN, LAM_P, LAM_Q, MU_VMAX, MU_VMIN] = idx_bus;
Vbase = mpc.bus(1, BASE_KV) * 1e3;      %% in Volts
Sbase = mpc.baseMVA * 1e6;              %% in VA
mpc.branch(:, [BR_R BR_X]) = mpc.branch(:, [BR_R BR_X]) / (Vbase^2 / Sbase);
mpc.bus(:, [PD, QD]) = mpc.bus(:, [PD, QD]) / 1e3;
"""


def baran_wu() -> str:
    """Return the 33-bus system (Baran, Wu, doi:10.1109/61.25627) in the form of its MATPOWER file: kW and ohm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = case33bw()
    load = net.load.groupby("bus")[["p_mw", "q_mvar"]].sum()
    bus = []
    for k in range(33):
        p, q = load.loc[k] * 1e3 if k in load.index else (0.0, 0.0)
        bus.append(f"\t{k + 1}\t{3 if k == 0 else 1}\t{p:g}\t{q:g}\t0 0 1 1 0 12.66 1 1.1 0.9;")
    branch = [
        f"\t{a + 1} {b + 1} {r:.10g} {x:.10g} 0 0 0 0 0 0 {int(on)} -360 360;"
        for a, b, r, x, on in zip(
            net.line.from_bus,
            net.line.to_bus,
            net.line.r_ohm_per_km * net.line.length_km,
            net.line.x_ohm_per_km * net.line.length_km,
            net.line.in_service,
            strict=True,
        )
    ]
    tables = {"bus": bus, "gen": ["\t1 0 0 10 -10 1 100 1 10 0;"], "branch": branch}
    text = "function mpc = case33bw % Baran and Wu\nmpc.version = '2';\nmpc.baseMVA = 10;\n"
    for name, rows in tables.items():
        text += f"mpc.{name} = [ %% table\n" + "\n".join(rows) + "\n];\n"
    return text + "mpc.gencost = [\n 2 0 0 3 0 20 0;\n];\n" + POST


@pytest.fixture(scope="module")
def text() -> str:
    return baran_wu()


@pytest.fixture
def path(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "case33.m"
    file.write_text(text)
    return file


def test_published_losses_of_the_33_bus_system(path: Path) -> None:
    grid = read_matpower(path)
    assert len(grid.buses) == 33
    assert len(grid.switches) == len(grid.lines) == 37
    assert sum(not switch.closed for switch in grid.switches) == 5
    losses = powerflow(compile_network(grid)).losses_w[0]
    assert encode_grid(grid)
    assert losses == pytest.approx(202.68e3, rel=1e-4)  # Baran and Wu's initial losses, as recomputed by many


def test_per_unit_case_with_transformer_shunt_and_charging(tmp_path: Path) -> None:
    file = tmp_path / "small.m"
    file.write_text(
        """function mpc = small
mpc.version = '2';
mpc.baseMVA = 100;
mpc.bus = [
1 3 0 0 0 0 1 1 0 110 1 1.1 0.9
2 1 0 0 0 2 1 1 0 20 1 1.1 0.9
3 1 8 3 1 0 1 1 0 20 1 1.1 0.9
];
mpc.gen = [1 0 0 99 -99 1.02 100 1 99 0; 3 2 0.5 1 -1 1 100 1 9 0];
mpc.branch = [
1 2 0.01 0.4 0 25 0 0 0.98 0 1 -360 360;
2 3 0.5 0.4 0.01 0 0 0 0 0 1 -360 360;
];
"""
    )
    grid = read_matpower(file)
    net = pandapower.create_empty_network(sn_mva=100, f_hz=50)
    one, two, three = (pandapower.create_bus(net, volts, name=f"{k + 1}") for k, volts in enumerate((110, 20, 20)))
    pandapower.create_ext_grid(net, one, vm_pu=1.02)
    pandapower.create_transformer_from_parameters(
        net, one, two, 100, 110 * 0.98, 20, vkr_percent=1, vk_percent=100 * np.hypot(0.01, 0.4), pfe_kw=0, i0_percent=0
    )
    base = 20**2 / 100
    pandapower.create_line_from_parameters(
        net, two, three, 1, 0.5 * base, 0.4 * base, 0.01 / base / (2 * np.pi * 50) * 1e9, 1
    )
    pandapower.create_load(net, three, 8, 3)
    pandapower.create_sgen(net, three, 2, 0.5)
    pandapower.create_shunt(net, two, q_mvar=-2)
    pandapower.create_shunt(net, three, q_mvar=0, p_mw=1)
    assert largest_difference_pu(grid, pandapower_voltages(net)) < 1e-8
    assert any("constant active and reactive power" in text for text in grid.assumptions)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mpc.baseMVA = 10;", "", "baseMVA is missing"),
        ("mpc.baseMVA = 10;", "mpc.baseMVA = 0;", "expected a positive number"),
        ("mpc.gen =", "mpc.generators =", "mpc.gen is missing"),
        ("\t1\t3\t0", "\t1\t3\tzero", "'zero', expected a number"),
        ("\t1\t3\t0", "\t1\t3", "columns"),
        ("/ 1e3;", "* 1.05;", "is not known to the MATPOWER reader"),
        ("Sbase = mpc.baseMVA * 1e6;", "Sbase = 42;", "is not known to the MATPOWER reader"),
        ("-10 1 100 1", "-10 1 100 0", "sources"),
    ],
)
def test_refuses_what_it_does_not_know(path: Path, text: str, old: str, new: str, message: str) -> None:
    assert old in text
    path.write_text(text.replace(old, new, 1))
    from flexmeter.grid.readers import read_any_grid

    with pytest.raises(InputError, match=message):
        read_any_grid(path)


_PIECES = st.sampled_from(
    ["", ";", "]", "[", "nan", "1e400", "-1", "3", "%", "...", "mpc.bus = [", "\t", "\n", "x", "\x00"]
)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 30), _PIECES), min_size=1, max_size=3))
def test_changed_files_give_a_grid_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, changes: list[tuple[int, int, str]]
) -> None:
    for place, length, piece in changes:
        at = place % len(text)
        text = text[:at] + piece + text[at + length :]
    file = tmp_path_factory.mktemp("fuzz") / "case.m"
    file.write_text(text)
    with suppress(InputError):
        assert encode_grid(read_matpower(file))


def test_import_compares_with_a_load_flow_of_the_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "case33bw.m"
    path.write_text(text)
    imported = read_any_grid(path)
    assert len(imported.reference()) == 99
    assert largest_difference_pu(imported.grid, imported.reference()) < 1e-8
