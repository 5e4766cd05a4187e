"""Checks of a grid model: collects every finding, raises once.

Each check is a function from a grid to findings, in the order a reader would want them: ids, references, numbers,
phases, switches and areas, connection.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flexmeter.errors import Finding, GridError
from flexmeter.grid.impedance import parse_vector_group
from flexmeter.grid.model import PHASES, Component, Grid, LineType, Load, Transformer
from flexmeter.grid.topology import branches, spanning_tree, unfed_buses

SMALLEST, LARGEST = 1e-9, 1e15
"""What a number of a grid may be, in any unit: beyond lies nothing physical, and squares overflow."""


def validate(grid: Grid, source: str = "", *, radial: bool = False) -> None:
    """Raise `GridError` with all findings, or return if there is none."""
    found = findings(grid, radial=radial)
    if found:
        raise GridError(found, source or f"grid {grid.id}")


def findings(grid: Grid, *, radial: bool = False) -> list[Finding]:
    """Return everything that is wrong with a grid model, an empty list if nothing is.

    With `radial` closed loops are findings too; without it they are allowed (meshed operation).
    """
    found = [finding for check in _CHECKS for finding in check(grid)]
    said = {(finding.component, name, finding.field) for finding in found for name in finding.ids}
    found += [item for item in _not_finite(grid) if (item.component, item.ids[0], item.field) not in said]
    if not found:  # connection can only be judged on sound references
        found += _connection(grid, radial)
    return found


def _ids(grid: Grid) -> Iterator[Finding]:
    for component, items in _components(grid):
        counts = Counter(item.id for item in items)
        twice = tuple(name for name, count in counts.items() if count > 1)
        if twice:
            yield Finding(component, twice, "id", "used more than once, expected unique ids")
        if "" in counts:
            yield Finding(component, ("",), "id", "empty, expected a name")
    shared = {line.id for line in grid.lines} & {item.id for item in grid.transformers}
    if shared:
        yield Finding("branch", tuple(sorted(shared)), "id", "names a line and a transformer")


def _references(grid: Grid) -> Iterator[Finding]:
    buses = {bus.id for bus in grid.buses}
    names = {branch.id for branch in branches(grid)}
    types = {item.id for item in grid.line_types}
    areas = {area.id for area in grid.areas}
    pairs = [("line", line.id, "type", line.type, types) for line in grid.lines]
    for kind, items in (("line", grid.lines), ("transformer", grid.transformers)):
        for item in items:
            pairs.append((kind, item.id, "from_bus", item.from_bus, buses))
            pairs.append((kind, item.id, "to_bus", item.to_bus, buses))
    for kind, hanging in (("source", grid.sources), ("load", grid.loads), ("shunt", grid.shunts)):
        pairs += [(kind, item.id, "bus", item.bus, buses) for item in hanging]
    pairs += [("switch", item.id, "branch", item.branch, names) for item in grid.switches]
    pairs += [("area", item.id, "head_bus", item.head_bus, buses) for item in grid.areas]
    pairs += [("area", item.id, "parent", item.parent, areas) for item in grid.areas if item.parent]
    pairs += [("bus", item.id, "area", item.area, areas) for item in grid.buses if item.area]
    for kind, name, field, value, known in pairs:
        if value not in known:
            yield Finding(kind, (name,), field, f"{value!r} is not in the grid")
    for branch in branches(grid):
        if branch.from_bus == branch.to_bus:
            yield Finding("branch", (branch.id,), "to_bus", f"{branch.to_bus!r} is also from_bus")


def _numbers(grid: Grid) -> Iterator[Finding]:
    positive = [("bus", bus.id, "voltage_v", bus.voltage_v) for bus in grid.buses]
    positive += [("source", item.id, "voltage_v", item.voltage_v) for item in grid.sources]
    for item in grid.transformers:
        fields = ("rated_power_va", "rated_from_v", "rated_to_v", "uk_percent")
        positive += [("transformer", item.id, field, getattr(item, field)) for field in fields]
    positive.append(("grid", grid.id, "frequency_hz", grid.frequency_hz))
    for component, name, field, value in positive:
        if not SMALLEST <= value <= LARGEST:
            yield Finding(component, (name,), field, f"{value}, expected a positive number")
    for line in grid.lines:
        if not (math.isfinite(line.length_km) and line.length_km >= 0):
            yield Finding("line", (line.id,), "length_km", f"{line.length_km}, expected >= 0")
    for load in grid.loads:
        values = (*load.power_w, *load.power_var, *load.zip)
        if not all(math.isfinite(value) for value in values):
            yield Finding("load", (load.id,), "power_w", "not a finite number")
        if abs(sum(load.zip) - 1) > 1e-6:
            yield Finding("load", (load.id,), "zip", f"shares sum to {sum(load.zip):g}, expected 1")
    for source in grid.sources:
        impedance = (source.angle_rad, source.r1_ohm, source.x1_ohm, source.r0_ohm, source.x0_ohm)
        if not all(math.isfinite(value) for value in impedance):
            yield Finding("source", (source.id,), "impedance", "not a finite number")


def _not_finite(grid: Grid) -> Iterator[Finding]:
    """Yield every number that is nan, infinite or absurd; only a voltage limit of a load may be infinite."""
    for component, items in _components(grid):
        for item in items:
            for field in item.__struct_fields__:
                value = getattr(item, field)
                if not _is_sane(value) and not (field == "v_max_pu" and value == math.inf):
                    yield Finding(component, (item.id,), field, f"{value}, expected finite numbers up to {LARGEST:g}")


def _is_sane(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_sane(item) for item in value)
    return not isinstance(value, float) or abs(value) <= LARGEST


def _not_negative(grid: Grid) -> Iterator[Finding]:
    fields = (
        ("line_type", grid.line_types, ("rated_current_a",)),
        (
            "transformer",
            grid.transformers,
            ("uk0_percent", "ukr0_percent", "no_load_loss_w", "no_load_current_percent"),
        ),
        ("source", grid.sources, ("r1_ohm", "r0_ohm")),
        ("load", grid.loads, ("v_min_pu", "nominal_voltage_v")),
    )
    for component, items, names in fields:
        for item, name in ((item, name) for item in items for name in names):
            if getattr(item, name) < 0:
                yield Finding(component, (item.id,), name, f"{getattr(item, name)}, expected >= 0")
    for transformer in grid.transformers:
        steps = transformer.tap_position - transformer.tap_neutral
        if not 1 + steps * transformer.tap_step_percent / 100 > 0:
            text = f"{steps} steps of {transformer.tap_step_percent} %, expected a ratio above 0"
            yield Finding("transformer", (transformer.id,), "tap_position", text)


def _line_types(grid: Grid) -> Iterator[Finding]:
    for item in grid.line_types:
        yield from _line_type(item)


def _line_type(item: LineType) -> Iterator[Finding]:
    shapes = {np.shape(item.r_ohm_per_km), np.shape(item.x_ohm_per_km)}
    if len(shapes) > 1 or next(iter(shapes)) not in ((3, 3), (4, 4)):
        yield Finding("line_type", (item.id,), "r_ohm_per_km", "expected 3x3 or 4x4 numbers, r and x alike")
        return
    size = next(iter(shapes))[0]
    if (size == 4) != (item.neutral != "none"):
        text = (
            f"{item.neutral!r} with a {size}x{size} matrix, expected 'none' with 3x3, 'source' or 'everywhere' with 4x4"
        )
        yield Finding("line_type", (item.id,), "neutral", text)
    r = np.asarray(item.r_ohm_per_km, float)
    x = np.asarray(item.x_ohm_per_km, float)
    if not (np.isfinite(r).all() and np.isfinite(x).all()):
        yield Finding("line_type", (item.id,), "r_ohm_per_km", "not a finite number in the matrix")
        return
    if not (np.allclose(r, r.T) and np.allclose(x, x.T)):
        yield Finding("line_type", (item.id,), "r_ohm_per_km", "matrix is not symmetric")
    elif np.linalg.eigvalsh(r)[0] < -1e-9 * max(1.0, float(np.abs(r).max())):
        yield Finding("line_type", (item.id,), "r_ohm_per_km", "matrix has a negative eigenvalue")
    if item.neutral == "everywhere" and size == 4 and not (r[3, 3] or x[3, 3]):
        text = "neutral without impedance, expected one where it is eliminated by Kron's reduction"
        yield Finding("line_type", (item.id,), "r_ohm_per_km", text)
    if item.c_nf_per_km and np.shape(item.c_nf_per_km) != (3, 3):
        yield Finding("line_type", (item.id,), "c_nf_per_km", "expected 3x3 numbers or none")


def _phases(grid: Grid) -> Iterator[Finding]:
    have = {bus.id: set(bus.phases) for bus in grid.buses}
    named = [("bus", bus.id, bus.phases) for bus in grid.buses]
    hanging = (("line", grid.lines), ("transformer", grid.transformers), ("load", grid.loads), ("shunt", grid.shunts))
    for kind, items in hanging:
        named += [(kind, item.id, item.phases) for item in items]
    for kind, name, phases in named:
        if not phases or phases != "".join(sorted(set(phases) & set(PHASES))):
            yield Finding(kind, (name,), "phases", f"{phases!r}, expected a, b, c in order, e.g. 'abc' or 'b'")
    at = [("line", line.id, bus, line.phases) for line in grid.lines for bus in (line.from_bus, line.to_bus)]
    at += [("load", load.id, load.bus, load.phases) for load in grid.loads]
    at += [("shunt", shunt.id, shunt.bus, shunt.phases) for shunt in grid.shunts]
    for item in grid.transformers:
        at += [("transformer", item.id, bus, item.phases) for bus in (item.from_bus, item.to_bus)]
    for kind, name, bus_id, phases in at:
        missing = set(phases) - have.get(bus_id, set(PHASES))
        if missing:
            text = f"{phases!r} but bus {bus_id} has no phase {', '.join(sorted(missing))}"
            yield Finding(kind, (name,), "phases", text)
    yield from _load_shapes(grid)


def _load_shapes(grid: Grid) -> Iterator[Finding]:
    for load in grid.loads:
        for field in ("power_w", "power_var"):
            values = getattr(load, field)
            expected = 1 if load.connection == "delta" and len(load.phases) == 2 else len(load.phases)
            if values and len(values) != expected:
                text = f"{len(values)} values, expected {expected} for phases {load.phases!r} or none"
                yield Finding("load", (load.id,), field, text)
        if load.connection == "delta" and len(load.phases) < 2:
            yield Finding("load", (load.id,), "connection", "delta needs at least two phases")
    for shunt in grid.shunts:
        if {len(shunt.g_s), len(shunt.b_s)} - {0, len(shunt.phases)}:
            yield Finding("shunt", (shunt.id,), "g_s", "expected one value per phase or none")


def _transformers(grid: Grid) -> Iterator[Finding]:
    for item in grid.transformers:
        try:
            primary, secondary, clock = parse_vector_group(item.vector_group)
        except ValueError as error:
            yield Finding("transformer", (item.id,), "vector_group", str(error))
        else:
            if item.phases != PHASES and (primary, secondary, clock) not in (("YN", "yn", 0), ("YN", "yn", 6)):
                text = f"{item.vector_group} with phases {item.phases!r}, expected YNyn0 or YNyn6, or phases 'abc'"
                yield Finding("transformer", (item.id,), "vector_group", text)
        if not 0 <= item.ukr_percent <= item.uk_percent:
            text = f"{item.ukr_percent}, expected between 0 and uk_percent {item.uk_percent}"
            yield Finding("transformer", (item.id,), "ukr_percent", text)


def _areas(grid: Grid) -> Iterator[Finding]:
    parents = {area.id: area.parent for area in grid.areas}
    for area in grid.areas:
        seen, here = {area.id}, area.parent
        while here and here in parents:
            if here in seen:
                yield Finding("area", (area.id,), "parent", "areas contain each other in a circle")
                break
            seen.add(here)
            here = parents[here]


def _connection(grid: Grid, radial: bool) -> Iterator[Finding]:
    if not grid.sources:
        yield Finding("grid", (grid.id,), "sources", "none, expected at least one")
        return
    counts = Counter(source.bus for source in grid.sources)
    twice = tuple(bus for bus, count in counts.items() if count > 1)
    if twice:
        yield Finding("bus", twice, "source", "has two sources, expected one")
    tree = spanning_tree(grid)
    if tree.islands:
        names = tuple(grid.buses[k].id for k in tree.islands)
        yield Finding("bus", names, "connection", "no source reaches it")
    else:
        yield from _unfed(grid)
        yield from _earth_currents(grid)
    if radial and tree.loops:
        names = tuple(branches(grid)[k].id for k in tree.loops)
        yield Finding("branch", names, "loop", "closes a loop where a radial grid is expected")


def _unfed(grid: Grid) -> Iterator[Finding]:
    lost: dict[str, list[str]] = {}
    for bus, phases in unfed_buses(grid).items():
        lost.setdefault(phases, []).append(bus)
    for phases, buses in lost.items():
        text = f"{', '.join(phases)}: no closed branch that carries all phases of the bus brings it from a source"
        yield Finding("bus", tuple(buses), "phases", text)


def _earth_currents(grid: Grid) -> Iterator[Finding]:
    """Yield transformers that give the earth current of unbalanced loads no way, and no impedance for one.

    Their neutral would float and the voltages to earth be set by what no grid file says (line capacitances, leakage).
    """
    closed = {item.id: True for item in branches(grid)} | {
        switch.branch: False for switch in grid.switches if not switch.closed
    }
    without = [item for item in grid.transformers if closed[item.id] and _blocks_earth_current(item)]
    unbalanced = {load.bus: load.id for load in grid.loads if _is_unbalanced(load)} if without else {}
    tree = spanning_tree(grid)
    names = [bus.id for bus in grid.buses]
    all_branches = branches(grid)
    below: dict[str, set[str]] = {name: {unbalanced[name]} if name in unbalanced else set() for name in names}
    for here, parent, branch in reversed(list(zip(tree.order, tree.parent, tree.branch, strict=True))):
        if parent < 0 or not below[names[here]]:
            continue
        item = all_branches[branch]
        if not isinstance(item, Transformer) or item.vector_group.startswith("YNyn"):
            below[names[parent]] |= below[names[here]]
        elif item in without:
            loads = ", ".join(sorted(below[names[here]])[:4])
            text = (
                f"{item.vector_group} gives no way to the earth current of unbalanced loads ({loads}): expected its "
                "zero-sequence impedance uk0_percent, or loads between phases"
            )
            yield Finding("transformer", (item.id,), "uk0_percent", text)


def _blocks_earth_current(item: Transformer) -> bool:
    primary, secondary, _ = parse_vector_group(item.vector_group)
    return not item.uk0_percent and (secondary in ("y", "d", "z") or (primary == "Y" and secondary == "yn"))


def _is_unbalanced(load: Load) -> bool:
    if load.connection == "delta":
        return False
    return load.phases != PHASES or any(len(set(values)) > 1 for values in (load.power_w, load.power_var))


def _components(grid: Grid) -> Iterable[tuple[str, Sequence[Component]]]:
    yield "bus", grid.buses
    yield "line_type", grid.line_types
    yield "line", grid.lines
    yield "transformer", grid.transformers
    yield "switch", grid.switches
    yield "source", grid.sources
    yield "load", grid.loads
    yield "shunt", grid.shunts
    yield "area", grid.areas


_CHECKS: tuple[Callable[[Grid], Iterator[Finding]], ...] = (
    _ids,
    _references,
    _numbers,
    _not_negative,
    _line_types,
    _phases,
    _transformers,
    _areas,
)
