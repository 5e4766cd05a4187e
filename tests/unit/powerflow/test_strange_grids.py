"""Numbers that make no sense, anywhere in a grid model: a finding or a clear error, never a silent wrong number."""

import math
from typing import Any

import numpy as np
from grids import feeder
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from flexmeter.errors import FlexmeterError
from flexmeter.grid import Grid, findings
from flexmeter.powerflow import compile_network, powerflow

TABLES = ("buses", "line_types", "lines", "transformers", "sources", "loads", "shunts")
STRANGE = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-300, 1e300, -1e9])
GRID = feeder()


def places(grid: Grid) -> list[tuple[str, int, str]]:
    """Every field of every component that holds a number or numbers."""
    return [
        (table, k, field.name)
        for table in TABLES
        for k, item in enumerate(getattr(grid, table)[:3])
        for field in fields(item)
        if numbers_in(getattr(item, field.name))
    ]


def numbers_in(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(numbers_in(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def spoiled(value: Any, number: float) -> Any:
    """The value with its first number replaced."""
    if isinstance(value, tuple):
        return (spoiled(value[0], number), *value[1:])
    return number


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(places(GRID)), number=STRANGE)
def test_a_strange_number_is_a_finding_or_a_result_that_holds(place: tuple[str, int, str], number: float) -> None:
    table, k, field = place
    items = getattr(GRID, table)
    item = replace(items[k], **{field: spoiled(getattr(items[k], field), number)})
    grid = replace(GRID, **{table: (*items[:k], item, *items[k + 1 :])})
    found = findings(grid)
    if found:
        assert any(item.id in finding.ids or finding.ids == ("feeder",) for finding in found)
        return
    assert math.isfinite(number) or field == "v_max_pu"
    try:
        flow = powerflow(compile_network(grid))
    except FlexmeterError:
        return
    if flow.converged.all():
        assert np.isfinite(flow.voltage_v).all()
        assert np.isfinite(flow.losses_w).all()
