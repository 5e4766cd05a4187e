"""Square brackets in what is printed are units and names, not markup."""

import msgspec
import pytest

from flexmeter.cli import app
from flexmeter.grid import Bus, Grid, Line, Load, Source, line_type_from_sequence, write_grid
from flexmeter.scenario.display import print_comparison


def test_units_of_the_comparison_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison([("losses, fixed topology [kWh]", "1283", "1282.8")])
    assert "[kWh]" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["grid show", "powerflow"])
def test_a_grid_whose_name_looks_like_markup_is_shown(command, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    cable = line_type_from_sequence("c", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)
    grid = Grid(
        id="vil[/lage]",
        buses=(Bus("head", 400.0), Bus("[red]end", 400.0)),
        line_types=(cable,),
        lines=(Line("line", "head", "[red]end", "c", 0.1),),
        sources=(Source("source", "head", 400.0),),
        loads=(Load("load", "[red]end", phases="a", power_w=(1e3,)),),
    )
    write_grid(grid, tmp_path / "grid.json")
    app([*command.split(), str(tmp_path / "grid.json")], standalone_mode=False)
    assert "vil[/lage]" in capsys.readouterr().out


def test_the_units_of_reconfigure_are_printed(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = (("sa", "s", "a", 1), ("ab", "a", "b", 1), ("bs", "b", "s", 0))
    document = {
        "name": "ring[/]",
        "base_kv": 10.0,
        "slack": "s",
        "buses": [{"id": bus, "p_kw": p, "q_kvar": 0.0} for bus, p in (("s", 0.0), ("a", 100.0), ("b", 200.0))],
        "branches": [{"id": name, "f": f, "t": t, "r": 1.0, "x": 1.0, "status": on} for name, f, t, on in ends],
    }
    (tmp_path / "ring.json").write_bytes(msgspec.json.encode(document))
    app(["reconfigure", str(tmp_path / "ring.json")], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "losses [kW]" in printed
    assert "lowest voltage [pu]" in printed
    assert "ring[/]" in printed
