"""Grid files: round trip, clear errors, no crash on any bytes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexmeter.errors import InputError
from flexmeter.grid import Grid, decode_grid, findings, grid_schema, read_grid, write_grid

SCHEMA = Path(__file__).parents[3] / "docs/format/grid.schema.json"


def test_round_trip(ring: Grid, tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    write_grid(ring, path)
    assert read_grid(path) == ring
    assert path.read_text().count("\n") > len(ring.buses), "one component a line"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"buses": [{"id": "1", "voltage_v": "high"}]}, r"Expected `float`, got `str` - at `\$.buses\[0\].voltage_v`"),
        ({"busses": []}, "unknown field `busses`"),
        ({"lines": [{"id": "l"}]}, "missing required field `from_bus`"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({"id": "g", **change}))
    with pytest.raises(InputError, match=rf"grid\.json: not a Flexmeter grid: .*{expected}"):
        read_grid(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        read_grid(tmp_path / "none.json")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_grid_or_an_input_error(data: bytes) -> None:
    try:
        grid = decode_grid(data)
    except InputError:
        return
    findings(grid)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["buses", "lines", "loads", "sources", "line_types", "areas", "frequency_hz"]), JSON, max_size=4
    )
)
def test_any_document_gives_findings_or_an_input_error(document: dict[str, object]) -> None:
    try:
        grid = decode_grid(json.dumps({"id": "fuzz", **document}).encode())
    except InputError:
        return
    findings(grid)


def test_published_schema_is_in_step() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(grid_schema()))
