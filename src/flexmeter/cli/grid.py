"""`flexmeter grid import|check|show`: grids of other programs in, findings, an overview and a map out."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flexmeter.errors import InputError

if TYPE_CHECKING:
    from flexmeter.grid import Grid
    from flexmeter.grid.readers import Comparison, Imported

SOURCE = typer.Argument(
    help="A grid: Flexmeter, pandapower or power-grid-model .json, OpenDSS .dss, MATPOWER .m, CGMES .xml/.zip, "
    "simbench:CODE."
)
JSON = typer.Option(False, "--json", help="Print JSON and nothing else.")

app = typer.Typer(help="Grids of other programs in; findings, an overview and a map out.", no_args_is_help=True)


class Target(StrEnum):
    """Formats we write."""

    FLEXMETER = "flexmeter"
    PANDAPOWER = "pandapower"
    POWER_GRID_MODEL = "power-grid-model"


@app.command("import")
def import_grid(
    source: str = SOURCE,
    out: Path = typer.Option(..., "--out", "-o", help="The file to write."),
    target: Target = typer.Option(Target.FLEXMETER, "--to", help="The format to write."),
    compare: bool = typer.Option(True, help="Compare the load flow with that of the program the grid comes from."),
    as_json: bool = JSON,
) -> None:
    """Convert a grid, say what was assumed, and compare both programs' load flows.

    Example: [bold]flexmeter grid import net.json --out grid.json[/bold]
    """
    from flexmeter.cli.files import print_pairs
    from flexmeter.grid.readers import read_any_grid

    if not out.parent.is_dir():
        raise InputError(f"--out {out}: folder {out.parent} does not exist")
    imported = read_any_grid(source)
    comparison = _compare(imported) if compare else None
    notes = _write(imported.grid, out, target)
    grid = imported.grid
    if as_json:
        print(json.dumps(_overview(grid) | {"file": str(out), "format": imported.format, "notes": list(notes)}
                         | {"comparison": _comparison_row(comparison)}))  # fmt: skip
        return
    pairs = [("from", f"{source} ({imported.format})"), ("to", f"{out} ({target.value})"), *_pairs(grid)]
    pairs += [("assumed", text) for text in grid.assumptions] + [("left out", text) for text in notes]
    if comparison:
        pairs.append(
            (
                "load flow",
                f"largest difference to {imported.format} {comparison.largest_pu:.2g} pu "
                f"(bus {comparison.bus} phase {comparison.phase}; {comparison.compared} voltages compared)",
            )
        )
    elif compare:
        pairs.append(("load flow", f"nothing to compare with: {imported.format} has no load flow here"))
    print_pairs(f"Grid {grid.id}", pairs)


@app.command()
def check(
    source: str = SOURCE,
    radial: bool = typer.Option(False, "--radial", help="Closed loops are findings too."),
    as_json: bool = JSON,
) -> None:
    """List everything that is wrong with a grid file; exit status 2 if anything is.

    Example: [bold]flexmeter grid check grid.json --radial[/bold]
    """
    from flexmeter.errors import FindingsError
    from flexmeter.grid import validate
    from flexmeter.grid.readers import read_any_grid

    try:
        grid = read_any_grid(source).grid
        validate(grid, source, radial=radial)
    except FindingsError as error:
        rows = [
            {"component": item.component, "ids": list(item.ids), "field": item.field, "text": item.text}
            for item in error.findings
        ]
        if as_json:
            print(json.dumps({"file": source, "findings": rows}))
        else:
            print(f"{source}: {len(rows)} finding{'s' if len(rows) > 1 else ''}")
            print("\n".join(f"  {finding}" for finding in error.findings))
        raise typer.Exit(2) from None
    if as_json:
        print(json.dumps({"file": source, "findings": []}))
    else:
        print(f"{source}: sound ({len(grid.buses)} buses, {len(grid.lines)} lines, {len(grid.loads)} loads)")


@app.command()
def show(
    source: str = SOURCE,
    plot: Path | None = typer.Option(None, "--plot", help="Draw a map into this .png, .svg or .pdf."),
    as_json: bool = JSON,
) -> None:
    """Show what a grid consists of; with --plot also as a map.

    Example: [bold]flexmeter grid show grid.json --plot map.png[/bold]
    """
    from flexmeter.cli.files import print_pairs
    from flexmeter.cli.pictures import check_picture, grid_map
    from flexmeter.grid.readers import read_any_grid

    check_picture(plot)
    grid = read_any_grid(source).grid
    if plot is not None:
        grid_map(plot, grid)
    if as_json:
        print(json.dumps(_overview(grid)))
        return
    pairs = _pairs(grid) + [("assumed", text) for text in grid.assumptions]
    print_pairs(f"Grid {grid.id}", pairs + ([("map", str(plot))] if plot else []))


def _compare(imported: Imported) -> Comparison | None:
    from flexmeter.grid.readers import compare_voltages
    from flexmeter.powerflow import compile_network, powerflow

    reference = imported.reference()
    if not reference:
        return None
    result = powerflow(compile_network(imported.grid))
    result.raise_if_diverged()
    network = result.model.network
    ours = dict(zip(network.nodes, abs(result.voltage_v[:, 0]).tolist(), strict=True))
    nominal = dict(zip(network.bus_ids, network.nominal_v.tolist(), strict=True))
    return compare_voltages(ours, reference, nominal)


def _comparison_row(comparison: Comparison | None) -> dict[str, object] | None:
    if comparison is None:
        return None
    return {
        "largest_pu": comparison.largest_pu,
        "bus": comparison.bus,
        "phase": comparison.phase,
        "compared": comparison.compared,
    }


def _write(grid: Grid, out: Path, target: Target) -> tuple[str, ...]:
    from flexmeter.grid import write_grid
    from flexmeter.grid.writers import write_pandapower, write_power_grid_model

    if target is Target.PANDAPOWER:
        return write_pandapower(grid, out)
    if target is Target.POWER_GRID_MODEL:
        return write_power_grid_model(grid, out)
    write_grid(grid, out)
    return ()


def _overview(grid: Grid) -> dict[str, object]:
    from flexmeter.grid import spanning_tree

    tree = spanning_tree(grid)
    levels = Counter(f"{bus.voltage_v / 1e3:g}" for bus in grid.buses)
    return {
        "grid": grid.id,
        "buses": len(grid.buses),
        "buses_per_kv": dict(levels),
        "lines": len(grid.lines),
        "line_km": sum(line.length_km for line in grid.lines),
        "transformers": len(grid.transformers),
        "switches": len(grid.switches),
        "open_switches": sum(not switch.closed for switch in grid.switches),
        "loads": dict(Counter(load.kind for load in grid.loads)),
        "areas": dict(Counter(area.level for area in grid.areas)),
        "loops": len(tree.loops),
        "radial": tree.is_radial,
        "assumptions": list(grid.assumptions),
    }


def _pairs(grid: Grid) -> list[tuple[str, str]]:
    overview = _overview(grid)

    def counted(field: str) -> str:
        counts = overview[field]
        assert isinstance(counts, dict)
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"

    levels = overview["buses_per_kv"]
    assert isinstance(levels, dict)
    return [
        ("buses", f"{overview['buses']} ({', '.join(f'{count} at {kv} kV' for kv, count in levels.items())})"),
        ("lines", f"{overview['lines']}, {overview['line_km']:.3g} km"),
        ("transformers", str(overview["transformers"])),
        ("switches", f"{overview['switches']}, {overview['open_switches']} open"),
        ("loads", counted("loads")),
        ("areas", counted("areas")),
        ("operated", "radially" if overview["radial"] else f"with {overview['loops']} closed loop(s)"),
    ]


def register(main: typer.Typer) -> None:
    """Add the commands to the application."""
    main.add_typer(app, name="grid")
