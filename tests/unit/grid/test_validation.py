"""Every kind of finding is found, named and collected."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from flexmeter.errors import GridError
from flexmeter.grid import Area, Grid, Line, LineType, Load, Source, findings, validate


def test_a_sound_grid_has_no_findings(ring: Grid) -> None:
    assert findings(ring, radial=True) == []


def _with(items: tuple[Any, ...], **changes: object) -> tuple[Any, ...]:
    return (replace(items[0], **changes), *items[1:])


BROKEN = {
    "bus 1 id: used more than once": lambda g: {"buses": (*g.buses, g.buses[0])},
    "bus 1 voltage_v: nan, expected a positive number": lambda g: {"buses": _with(g.buses, voltage_v=math.nan)},
    "bus 1 phases: 'ba'": lambda g: {"buses": _with(g.buses, phases="ba")},
    "line l1 to_bus: 'nowhere' is not in the grid": lambda g: {"lines": _with(g.lines, to_bus="nowhere")},
    "branch l1 to_bus: '1' is also from_bus": lambda g: {"lines": _with(g.lines, to_bus="1")},
    "line l1 type: 'rope' is not in the grid": lambda g: {"lines": _with(g.lines, type="rope")},
    "line l1 length_km: -1, expected >= 0": lambda g: {"lines": _with(g.lines, length_km=-1)},
    "line bad phases: 'ab' but bus 5 has no phase a": lambda g: {
        "lines": (*g.lines, Line("bad", "4", "5", "cable", 1, phases="ab"))
    },
    "switch s1 branch: 'l9' is not in the grid": lambda g: {"switches": _with(g.switches, branch="l9")},
    "transformer t vector_group: vector group 'Dyn12'": lambda g: {
        "transformers": _with(g.transformers, vector_group="Dyn12")
    },
    "transformer t ukr_percent: 9": lambda g: {"transformers": _with(g.transformers, ukr_percent=9)},
    "transformer t rated_power_va: 0": lambda g: {"transformers": _with(g.transformers, rated_power_va=0)},
    "load plant power_w: 3 values, expected 2 for phases 'ab'": lambda g: {"loads": _with(g.loads, phases="ab")},
    "load one connection: delta needs at least two phases": lambda g: {
        "loads": (*g.loads, Load("one", "1", phases="a", connection="delta"))
    },
    "load plant zip: shares sum to 2": lambda g: {"loads": _with(g.loads, zip=(1.0, 0.0, 1.0))},
    "grid ring sources: none": lambda g: {"sources": ()},
    "bus 1 source: has two sources": lambda g: {"sources": (*g.sources, Source("again", "1", 15e3))},
    "area lv parent: areas contain each other": lambda g: {
        "areas": (Area("mv", "mv", "1", parent="lv"), Area("lv", "lv", "4", parent="mv"))
    },
    "bus 2 connection: no source reaches it": lambda g: {"switches": _with(g.switches, closed=False)},
    "line_type bad r_ohm_per_km: matrix is not symmetric": lambda g: {
        "line_types": (*g.line_types, LineType("bad", ((1, 0, 0), (1, 1, 0), (0, 0, 1)), ((1, 0, 0),) * 3))
    },
    "line_type bad r_ohm_per_km: matrix has a negative eigenvalue": lambda g: {
        "line_types": (
            *g.line_types,
            LineType("bad", ((-1, 0, 0), (0, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        )
    },
    "line_type bad r_ohm_per_km: expected 3x3 or 4x4": lambda g: {
        "line_types": (*g.line_types, LineType("bad", ((1.0,),), ((1.0,),)))
    },
    "line_type bad neutral: 'source' with a 3x3 matrix": lambda g: {
        "line_types": (*g.line_types, replace(g.line_types[0], id="bad", neutral="source"))
    },
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_wrong_is_named(ring: Grid, text: str) -> None:
    broken = replace(ring, **BROKEN[text](ring))
    assert any(str(finding).startswith(text) for finding in findings(broken)), [str(f) for f in findings(broken)]


def test_a_loop_is_a_finding_only_where_a_radial_grid_is_expected(ring: Grid) -> None:
    closed = ring.with_switches((True, True, True))
    assert findings(closed) == []
    assert [str(f) for f in findings(closed, radial=True)] == [
        "branch l2 loop: closes a loop where a radial grid is expected"
    ]


def test_all_findings_are_raised_at_once(ring: Grid) -> None:
    broken = replace(ring, buses=_with(ring.buses, voltage_v=-1), lines=_with(ring.lines, type="rope"))
    with pytest.raises(GridError, match=r"^ring\.json: .*rope.*; .*voltage_v") as caught:
        validate(broken, "ring.json")
    assert len(caught.value.findings) == 2


def test_a_neutral_without_impedance_cannot_be_eliminated(ring: Grid) -> None:
    four = tuple(tuple(0.3 if i == j < 3 else 0.0 for j in range(4)) for i in range(4))
    bare = LineType("cable", four, four, neutral="everywhere")
    (finding,) = findings(replace(ring, line_types=(bare,)))
    assert "neutral without impedance" in finding.text
