import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_checks import largest_difference_pu

from flexmeter.errors import GridError, InputError
from flexmeter.grid import encode_grid
from flexmeter.grid.readers import grid_from_pandapower, pandapower_voltages, read_pandapower
from flexmeter.grid.readers.parts import ZERO_SEQUENCE_FACTOR

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pandapower
    import pandapower.networks as networks


def quietly(make: Callable[..., object], *arguments: object, **options: object) -> object:
    """Build a net of pandapower's without its own deprecation warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "options", "tolerance_pu"),
    [
        ("create_cigre_network_mv", {"with_der": "all"}, 1e-8),  # half-open lines, loops to be closed by switches
        ("create_cigre_network_lv", {}, 1e-8),
        ("case33bw", {}, 1e-8),
        ("create_kerber_dorfnetz", {}, 5e-5),  # no-load branch: T model there, from-side here
    ],
)
def test_load_flow_equals_pandapower(name: str, options: dict[str, str], tolerance_pu: float) -> None:
    net = quietly(getattr(networks, name), **options)
    grid = grid_from_pandapower(net, name)
    assert largest_difference_pu(grid, pandapower_voltages(net)) < tolerance_pu


def test_asymmetric_loads_equal_pandapowers_three_phase_load_flow() -> None:
    net = pandapower.create_empty_network()
    buses = [pandapower.create_bus(net, 0.4, name=name) for name in "ABC"]
    pandapower.create_ext_grid(net, buses[0], vm_pu=1.02, s_sc_max_mva=1e7, rx_max=0.1, x0x_max=1.0, r0x0_max=0.1)
    for one, other, length in ((0, 1, 0.2), (1, 2, 0.15)):
        pandapower.create_line_from_parameters(
            net, one, other, length, r_ohm_per_km=0.206, x_ohm_per_km=0.08, c_nf_per_km=0, max_i_ka=0.27,
            r0_ohm_per_km=0.824, x0_ohm_per_km=0.3, c0_nf_per_km=0,
        )  # fmt: skip
    pandapower.create_asymmetric_load(net, 1, p_a_mw=0.006, q_a_mvar=0.002, p_c_mw=0.011)
    pandapower.create_asymmetric_load(net, 2, p_b_mw=0.004, q_b_mvar=0.001)
    pandapower.create_asymmetric_sgen(net, 2, p_a_mw=0.003)
    assert largest_difference_pu(grid_from_pandapower(net), pandapower_voltages(net)) < 1e-6


def test_european_feeder_is_the_same_grid_as_in_the_opendss_files() -> None:
    from flexmeter.scenario.european_lv import european_lv_case

    grid = grid_from_pandapower(quietly(networks.ieee_european_lv_asymmetric, "on_peak_566"))
    here = {line.id.lower(): (line.from_bus, line.to_bus, line.length_km) for line in grid.lines}
    assert len(grid.loads) == 55
    for line in european_lv_case().grid.lines:
        assert here[line.id] == (line.from_bus, line.to_bus, pytest.approx(line.length_km, rel=1e-5))
    assert grid.transformers[0].vector_group == "Dyn1"


def two_substations() -> object:
    """Two external grids, each with a transformer and a line, tied by an open line."""
    net = pandapower.create_empty_network()
    for k in range(2):
        top, bar, end = (pandapower.create_bus(net, volts, name=f"{name}{k}") for name, volts in _LEVELS)
        pandapower.create_ext_grid(net, top, vm_pu=1.02, name=f"grid {k}")
        pandapower.create_transformer(net, top, bar, "25 MVA 110/20 kV")
        pandapower.create_line(net, bar, end, 4.0, "NA2XS2Y 1x185 RM/25 12/20 kV")
        pandapower.create_load(net, end, 1.5 + k, 0.4)
    net.trafo["vector_group"] = None
    pandapower.create_line(net, 2, 5, 3.0, "NA2XS2Y 1x185 RM/25 12/20 kV", name="tie")
    pandapower.create_switch(net, 2, 2, et="l", closed=False)
    return net


_LEVELS = (("HV", 110.0), ("MV", 20.0), ("end", 20.0))


def test_assumptions_are_recorded() -> None:
    net = two_substations()
    grid = grid_from_pandapower(net)
    text = " | ".join(grid.assumptions)
    for expected in ("zero-sequence impedance", "vector group", "2 sources of equal voltage joined", "stiff"):
        assert expected in text
    kind = grid.line_types[0]
    own, mutual = kind.r_ohm_per_km[0][0], kind.r_ohm_per_km[0][1]
    assert own + 2 * mutual == pytest.approx(ZERO_SEQUENCE_FACTOR * (own - mutual))
    assert largest_difference_pu(grid, pandapower_voltages(net)) < 5e-5


def test_half_open_line_keeps_its_charging_current() -> None:
    net = pandapower.create_empty_network()
    one, other = (pandapower.create_bus(net, 20.0, name=name) for name in ("A", "B"))
    pandapower.create_ext_grid(net, one, vm_pu=1.0)
    for length in (1.0, 30.0):
        pandapower.create_line(net, one, other, length, "NA2XS2Y 1x185 RM/25 12/20 kV", name=f"L{length:g}")
    pandapower.create_switch(net, other, 1, et="l", closed=False, name="open")
    pandapower.create_load(net, other, 2.0, 0.5)
    grid = grid_from_pandapower(net)
    assert [switch.id for switch in grid.switches] == ["open"]
    assert largest_difference_pu(grid, pandapower_voltages(net)) < 1e-8
    closed = grid.with_switches((True,))
    net.switch.loc[0, "closed"] = True
    assert largest_difference_pu(closed, pandapower_voltages(net)) < 1e-8


def test_components_with_all_their_options() -> None:
    net = pandapower.create_empty_network(f_hz=50)
    buses = [pandapower.create_bus(net, volts, name=f"bus {k}") for k, volts in enumerate((20.0, 0.4, 0.4, 0.4))]
    pandapower.create_ext_grid(net, buses[0], vm_pu=1.02)
    pandapower.create_transformer(net, buses[0], buses[1], "0.4 MVA 20/0.4 kV", tap_pos=-1, parallel=2)
    net.trafo[["i0_percent", "pfe_kw"]] = 0.0  # its place differs: T model there, from-side here
    pandapower.create_line(net, buses[1], buses[2], 0.2, "NAYY 4x150 SE", parallel=2)
    pandapower.create_switch(net, buses[2], buses[3], et="b", name="coupler")
    pandapower.create_load(net, buses[2], 0.05, 0.01, const_z_p_percent=40, const_z_q_percent=40, scaling=1.1)
    pandapower.create_load(net, buses[3], 0.03, 0.01, const_i_p_percent=100, const_i_q_percent=100)
    pandapower.create_sgen(net, buses[3], 0.02, q_mvar=-0.003)
    pandapower.create_storage(net, buses[3], 0.004, max_e_mwh=1)
    pandapower.create_shunt(net, buses[2], q_mvar=-0.01, p_mw=0.001, step=2)
    pandapower.create_ward(net, buses[2], 0.005, 0.001, 0.004, 0.002)
    pandapower.create_motor(net, buses[2], pn_mech_mw=0.01, cos_phi=0.85, efficiency_percent=90, loading_percent=80)
    grid = grid_from_pandapower(net)
    assert grid.transformers[0].rated_power_va == 800e3
    # pandapower mixes the shares of several loads at one bus: its own solution misses the balance there by 0.3 %
    assert largest_difference_pu(grid, pandapower_voltages(net)) < 2e-4
    net.load[["const_z_p_percent", "const_z_q_percent", "const_i_p_percent", "const_i_q_percent"]] = 0.0
    assert largest_difference_pu(grid_from_pandapower(net), pandapower_voltages(net)) < 1e-8


def test_slack_generator_is_a_source() -> None:
    net = pandapower.create_empty_network()
    one, other = (pandapower.create_bus(net, 20.0) for _ in range(2))
    pandapower.create_gen(net, one, p_mw=0.0, vm_pu=1.03, slack=True)
    pandapower.create_line(net, one, other, 3.0, "NA2XS2Y 1x185 RM/25 12/20 kV")
    pandapower.create_load(net, other, 2.0, 0.5)
    assert largest_difference_pu(grid_from_pandapower(net), pandapower_voltages(net)) < 1e-8


def test_json_file(tmp_path: Path) -> None:
    net = quietly(networks.create_cigre_network_lv)
    path = tmp_path / "cigre.json"
    pandapower.to_json(net, str(path))
    grid = read_pandapower(path)
    assert grid.id == "cigre"
    assert largest_difference_pu(grid, pandapower_voltages(net)) < 1e-8


def test_everything_unreadable_is_named_at_once() -> None:
    net = quietly(networks.create_cigre_network_lv)
    net.line.loc[3, "r_ohm_per_km"] = float("nan")
    net.trafo.loc[0, "sn_mva"] = None
    net.load.loc[1, "bus"] = 999
    pandapower.create_impedance(net, 1, 2, 0.1, 0.1, 1.0)
    with pytest.raises(GridError) as error:
        grid_from_pandapower(net)
    text = str(error.value)
    for expected in ("line 3 r_ohm_per_km", "trafo 0 sn_mva", "load 1 bus: 999", "impedance"):
        assert expected in text


def test_sources_that_differ_are_refused() -> None:
    net = two_substations()
    net.ext_grid.loc[net.ext_grid.index[0], "vm_pu"] = 1.05
    with pytest.raises(GridError, match="differ, expected one voltage"):
        grid_from_pandapower(net)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"_class": "pandapowerNet"}', "\x00"])
def test_broken_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"net\.json"):
        read_pandapower(path)


_VALUES = st.one_of(st.none(), st.floats(), st.integers(-3, 40), st.text(max_size=4), st.booleans())


@pytest.fixture(scope="module")
def varied() -> object:
    return two_substations()


@settings(max_examples=50)
@given(st.data())
def test_changed_cells_give_a_grid_or_an_input_error(varied: object, data: st.DataObject) -> None:
    net = varied
    original = {}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(["bus", "line", "trafo", "load", "switch", "ext_grid"]))
        original.setdefault(name, net[name])
        table = net[name].astype(object)
        column = data.draw(st.sampled_from(list(table.columns)))
        table.at[data.draw(st.sampled_from(list(table.index))), column] = data.draw(_VALUES)
        net[name] = table
    try:
        with suppress(InputError):
            assert encode_grid(grid_from_pandapower(net))
    finally:
        for name, table in original.items():
            net[name] = table


def transformer_net(**changes: object) -> object:
    """Return a net with a loaded 20/0.4 kV transformer without no-load branch, and columns of it changed."""
    net = pandapower.create_empty_network()
    buses = [pandapower.create_bus(net, level) for level in (20.0, 0.4, 0.4)]
    pandapower.create_ext_grid(net, buses[0], vm_pu=1.02)
    quietly(pandapower.create_transformer, net, buses[0], buses[1], "0.4 MVA 20/0.4 kV")
    quietly(pandapower.create_line, net, buses[1], buses[2], 0.2, "NAYY 4x150 SE")
    pandapower.create_load(net, buses[2], 0.06, 0.01)
    for column, value in ({"pfe_kw": 0.0, "i0_percent": 0.0} | changes).items():
        net.trafo[column] = value
    return net


@pytest.mark.parametrize(
    "changes",
    [
        {"tap_pos": 2},
        {"tap_pos": 1.5},
        {"tap_pos": -2, "tap_side": "lv"},
        {"tap_pos": 2, "tap_changer_type": None},  # a position without effect
        {"tap2_pos": 3, "tap2_neutral": 0, "tap2_step_percent": 2.0, "tap2_side": "hv", "tap2_changer_type": "Ratio"},
    ],
)
def test_taps_act_as_in_pandapower(changes: dict[str, object]) -> None:
    net = transformer_net(**changes)
    assert largest_difference_pu(grid_from_pandapower(net), pandapower_voltages(net)) < 1e-6


def test_impedances_of_switches_and_between_buses() -> None:
    net = transformer_net()
    more = [pandapower.create_bus(net, 0.4) for _ in range(2)]
    pandapower.create_switch(net, 2, more[0], et="b", z_ohm=0.05)
    pandapower.create_impedance(net, more[0], more[1], 0.01, 0.02, sn_mva=1.0)
    pandapower.create_load(net, more[1], 0.02, 0.005)
    assert largest_difference_pu(grid_from_pandapower(net), pandapower_voltages(net)) < 1e-6
    net.impedance["rtf_pu"] = 0.03
    with pytest.raises(GridError, match="alike in both directions"):
        grid_from_pandapower(net)


def test_tables_of_taps_are_refused() -> None:
    with pytest.raises(GridError, match="tables of taps"):
        grid_from_pandapower(transformer_net(tap_dependency_table=True))


@pytest.mark.parametrize("table", ["line", "trafo"])
def test_none_in_parallel_is_a_finding(table: str) -> None:
    net = transformer_net()
    net[table]["parallel"] = 0
    with pytest.raises(GridError, match=f"{table} 0 parallel: 0, expected a positive number"):
        grid_from_pandapower(net)
