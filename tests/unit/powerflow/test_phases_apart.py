"""Phases that run in branches of their own, and phases that do not arrive at all."""

import numpy as np
import pytest
from msgspec.structs import replace

from flexmeter.errors import GridError, MeasurementError, NotRadial
from flexmeter.estimation import Estimator, Meter, branch_meters, load_meters
from flexmeter.grid import Bus, Grid, Line, Load, Source, Transformer, findings, line_type_from_sequence, spanning_tree
from flexmeter.grid.writers import pandapower_net, power_grid_model_input
from flexmeter.powerflow import Network, PowerFlowResult, compile_network, powerflow

CABLE = line_type_from_sequence("c", r1_ohm_per_km=0.2, x1_ohm_per_km=0.08, r0_ohm_per_km=0.8, x0_ohm_per_km=0.3)


def grid_of(*lines: Line, phases: str = "ab", transformers: tuple[Transformer, ...] = ()) -> Grid:
    return Grid(
        id="apart",
        buses=(Bus("source", 400.0), Bus("mid", 400.0), Bus("end", 400.0, phases)),
        line_types=(CABLE,),
        lines=lines,
        transformers=transformers,
        sources=(Source("s", "source", 400.0),),
        loads=(
            Load("x", "end", "a", power_w=(5000.0,), power_var=(500.0,)),
            Load("y", "end", "b", power_w=(3000.0,)),
        ),
    )


APART = grid_of(
    Line("first", "source", "mid", "c", 0.1),
    Line("a_line", "mid", "end", "c", 0.4, "a"),
    Line("b_line", "end", "mid", "c", 0.2, "b"),
)


def run(grid: Grid) -> tuple[Network, PowerFlowResult]:
    network = compile_network(grid)
    return network, powerflow(network, tolerance_va=1e-6)


def test_lines_of_one_phase_beside_each_other_feed_one_bus() -> None:
    assert findings(APART, radial=True) == []
    assert spanning_tree(APART).is_radial
    network, flow = run(APART)
    at = {node: flow.voltage_v[row, 0] for row, node in enumerate(network.nodes)}
    self_impedance = (2 * complex(0.2, 0.08) + complex(0.8, 0.3)) / 3
    for phase, length, power in (("a", 0.4, 5000 + 500j), ("b", 0.2, 3000)):
        current = np.conj(power / at["end", phase])
        assert at["mid", phase] - at["end", phase] == pytest.approx(self_impedance * length * current, rel=1e-9)


def test_a_phase_that_does_not_arrive_is_a_finding_not_the_voltage_upstream() -> None:
    grid = grid_of(Line("first", "source", "mid", "c", 0.1), Line("a_line", "mid", "end", "c", 0.4, "a"))
    (finding,) = findings(grid)
    assert finding.ids == ("end",)
    assert finding.text.startswith("b: no closed branch")
    with pytest.raises(NotRadial, match="end with all phases"):
        compile_network(grid)


def test_a_short_way_with_one_phase_does_not_feed_three() -> None:
    long_way = Line("last", "mid", "end", "c", 0.4)
    grid = grid_of(
        Line("first", "source", "mid", "c", 0.1), long_way, Line("short", "source", "end", "c", 0.4, "a"), phases="abc"
    )
    assert findings(grid) == []
    network, flow = run(grid)
    assert [loop.branch for loop in network.loops] == ["short"]
    without = replace(grid, lines=grid.lines[:2])
    b = network.node_row["end", "b"], network.node_row["source", "b"]
    assert abs(flow.voltage_v[b[0], 0]) < abs(flow.voltage_v[b[1], 0])  # phase b comes over the long way
    assert flow.losses_w[0] < run(without)[1].losses_w[0]  # and a over both


def units(taps: tuple[int, int]) -> Grid:
    rated = dict(rated_power_va=30_000.0, rated_from_v=400.0, rated_to_v=400.0, uk_percent=2.0, ukr_percent=1.0)
    bank = tuple(
        Transformer(f"reg_{p}", "mid", "end", **rated, vector_group="YNyn0", tap_side="to", tap_position=tap,
                    tap_step_percent=0.625, phases=p)
        for p, tap in zip("ab", taps, strict=True)
    )  # fmt: skip
    return grid_of(Line("first", "source", "mid", "c", 0.1), transformers=bank)


def test_a_bank_of_regulators_has_a_tap_per_phase() -> None:
    assert findings(units((4, -4)), radial=True) == []
    network, flow = run(units((4, -4)))
    at = {node: flow.voltage_v[row, 0] for row, node in enumerate(network.nodes)}
    z = complex(0.01, np.sqrt(0.02**2 - 0.01**2)) * 400**2 / 30_000
    for phase, ratio, power in (("a", 1.025, 5000 + 500j), ("b", 0.975, 3000)):
        drop = z * ratio**0 * np.conj(power / at["end", phase])
        assert at["end", phase] == pytest.approx(ratio * at["mid", phase] - drop, rel=1e-9)


def test_the_estimator_meets_the_load_flow_through_a_bank_and_knows_each_unit() -> None:
    grid = units((4, -4))
    network, flow = run(grid)
    meters = (*load_meters(network), Meter("active_power", "branch_from", "reg_b", "b"))
    node, _ = network.injection_nodes
    power = flow.voltage_v[node] * flow.injection_a.conj()
    value = np.concatenate([np.abs(flow.voltage_v[node]), power.real, power.imag, [[np.nan]]])
    estimate = Estimator(network, meters).estimate(value, np.full_like(value, 1.0))
    assert np.abs(np.abs(estimate.voltage_v) - np.abs(flow.voltage_v)).max() < 1e-5
    upper = flow.voltage_v[network.node_row["mid", "b"], 0] * np.conj(flow.injection_a[1, 0]) * 0.975
    assert estimate.fitted[-1, 0] == pytest.approx(upper.real, rel=1e-6)
    with pytest.raises(MeasurementError, match="reg_b a"):
        Estimator(network, [Meter("active_power", "branch_from", "reg_b", "a")])


def test_branch_meters_of_a_bank() -> None:
    network = compile_network(units((0, 0)))
    assert {meter.id for meter in branch_meters(network)} == {"first", "reg_a", "reg_b"}
    Estimator(network, branch_meters(network))


def test_other_formats_refuse_what_they_would_connect() -> None:
    for write in (pandapower_net, power_grid_model_input):
        for grid in (APART, units((0, 0))):
            with pytest.raises(GridError, match="phases of its own"):
                write(grid)


def test_a_unit_between_phases_must_be_wye_wye() -> None:
    grid = units((0, 0))
    wrong = tuple(replace(item, vector_group="Dyn11") for item in grid.transformers)
    assert {finding.field for finding in findings(replace(grid, transformers=wrong))} == {"vector_group"}
