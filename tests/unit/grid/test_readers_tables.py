import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from flexmeter.errors import InputError, MeasurementError
from flexmeter.grid.readers import compare_voltages, read_any_grid, read_load_table, read_reading_table

ROWS = (("one", "a"), ("three", "a"), ("three", "b"), ("three", "c"))
DEFAULT = np.array([10.0, 1.0, 2.0, 3.0]), np.zeros(4)


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_loads_by_phase_and_in_total(tmp_path: Path) -> None:
    file = table(
        tmp_path / "loads.csv",
        "scenario,load,phase,active_power_w,reactive_power_var\n"
        "noon,one,a,500,100\nnoon,three,,3000,300\nnight,three,b,7,1\n",
    )
    loads = read_load_table(file, ROWS, DEFAULT)
    assert loads.scenarios == ("noon", "night")
    assert loads.active_power_w.T.tolist() == [[500, 1000, 1000, 1000], [10, 1, 7, 3]]
    assert loads.reactive_power_var[:, 0].tolist() == [100, 100, 100, 100]


def test_parquet_and_no_scenario_column(tmp_path: Path) -> None:
    file = tmp_path / "loads.parquet"
    parquet.write_table(pa.table({"load": ["one"], "active_power_w": [5], "reactive_power_var": [1.5]}), file)
    loads = read_load_table(file, ROWS, DEFAULT)
    assert loads.scenarios == ("0",)
    assert loads.active_power_w[:, 0].tolist() == [5, 1, 2, 3]


def test_power_grid_model_update_as_loads(tmp_path: Path) -> None:
    file = tmp_path / "update.json"
    data = [
        {"sym_load": [{"id": 1, "name": "three", "p_specified": 3.0, "q_specified": 0.3}]},
        {"asym_load": [{"id": 2, "name": "one", "p_specified": [8.0, 0, 0], "q_specified": [1.0, 0, 0]}]},
    ]
    file.write_text(json.dumps({"version": "1.0", "type": "update", "is_batch": True, "attributes": {}, "data": data}))
    loads = read_load_table(file, ROWS, DEFAULT)
    assert loads.active_power_w.T.tolist() == [[10, 1, 1, 1], [8, 1, 2, 3]]
    data[0]["sym_load"][0]["name"] = "nobody"
    file.write_text(json.dumps({"version": "1.0", "type": "update", "is_batch": True, "attributes": {}, "data": data}))
    with pytest.raises(MeasurementError, match="nobody"):
        read_load_table(file, ROWS, DEFAULT)


def test_all_bad_rows_are_named(tmp_path: Path) -> None:
    file = table(tmp_path / "loads.csv", "load,active_power_w,reactive_power_var\nnobody,1,1\none,many,1\nthree,1,\n")
    with pytest.raises(MeasurementError) as error:
        read_load_table(file, ROWS, DEFAULT)
    assert [finding.field for finding in error.value.findings] == ["row 1", "row 2", "row 3"]


def test_readings_missing_twice_and_without_sigma(tmp_path: Path) -> None:
    file = table(
        tmp_path / "readings.csv",
        "scenario,meter,phase,quantity,value,sigma\n"
        "1,one,a,voltage,230.5,2.3\n1,one,a,active_power,500,\n2,one,a,voltage,,2.3\n",
    )
    readings = read_reading_table(file)
    assert readings.keys == (("voltage", "one", "a", ""), ("active_power", "one", "a", ""))
    assert readings.value[0, 0] == 230.5
    assert np.isnan(readings.value[0, 1])
    assert np.isnan(readings.value[1, 1])
    assert np.isnan(readings.sigma[1, 0])
    table(file, "meter,quantity,value\none,voltage,1\none,voltage,2\n")
    with pytest.raises(MeasurementError, match="row 2: given twice"):
        read_reading_table(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n1,2\n", "column 'meter' is missing"),
        ("x.csv", "meter,quantity,value\n", "no readings"),
        ("x.csv", "", "not a table"),
        ("x.csv", "meter,quantity,value\none,voltage,high\n", "'high'"),
        ("x.parquet", "no parquet", "not a table"),
        ("x.xlsx", "", "expected .csv or .parquet"),
    ],
)
def test_bad_reading_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_reading_table(table(tmp_path / name, content))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_reading_table(tmp_path / "none.csv")


@settings(max_examples=150)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_table_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, header: bool
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "x.csv"
    file.write_bytes((b"meter,quantity,value,scenario,phase,sigma\n" if header else b"") + tail)
    with suppress(InputError):
        read_reading_table(file)
    with suppress(InputError):
        read_load_table(file, ROWS, DEFAULT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.json", "{", "not JSON"),
        ("g.json", "{}", "not a Flexmeter grid"),
        ("g.json", '{"id": "x"}', "sources: none"),
        ("g.txt", "", "extension, expected"),
        ("g.zip", "PK", "not a zip file"),
        ("g.xml", "<rdf", "CGMES"),
    ],
)
def test_grid_files_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_any_grid(table(tmp_path / name, content))


def test_unknown_simbench_code_or_missing_package() -> None:
    with pytest.raises(InputError, match="SimBench code"):
        read_any_grid("simbench:1-LV-nowhere")


def test_comparison_names_the_worst_voltage() -> None:
    ours = {("x", "a"): 230.0, ("y", "a"): 229.0, ("z", "a"): 1.0}
    comparison = compare_voltages(ours, {("x", "a"): 230.0, ("y", "a"): 231.3}, {"x": 230.0, "y": 230.0})
    assert (comparison.bus, comparison.phase, comparison.compared) == ("y", "a", 2)
    assert comparison.largest_pu == pytest.approx(0.01)
    with pytest.raises(InputError, match="nothing to compare"):
        compare_voltages(ours, {}, {})


def test_names_stay_as_written(tmp_path: Path) -> None:
    file = table(
        tmp_path / "readings.csv",
        "meter,quantity,value,scenario\n007,voltage,231,2024-01-01T00:00:00+01:00\n1.10,voltage,232,true\n",
    )
    readings = read_reading_table(file)
    assert [key[1] for key in readings.keys] == ["007", "1.10"]
    assert readings.scenarios == ("2024-01-01T00:00:00+01:00", "true")


def test_nan_is_missing_in_both_kinds_of_file(tmp_path: Path) -> None:
    text = table(tmp_path / "r.csv", "meter,quantity,value,sigma\none,voltage,nan,1\ntwo,voltage,230,\n")
    columns = {"meter": ["one", "two"], "quantity": ["voltage"] * 2, "value": [np.nan, 230.0], "sigma": [1.0, np.nan]}
    parquet.write_table(pa.table(columns), tmp_path / "r.parquet")
    for file in (text, tmp_path / "r.parquet"):
        readings = read_reading_table(file)
        assert np.isnan(readings.value[0, 0])
        assert readings.value[1, 0] == 230
        assert np.isnan(readings.sigma[1, 0])


def test_one_word_in_a_column_does_not_spoil_its_numbers(tmp_path: Path) -> None:
    file = table(tmp_path / "r.csv", "meter,quantity,value\none,voltage,many\ntwo,voltage,230\n")
    with pytest.raises(MeasurementError) as error:
        read_reading_table(file)
    assert [finding.field for finding in error.value.findings] == ["row 1"]


def test_loads_given_twice_or_not_at_all(tmp_path: Path) -> None:
    head = "load,phase,active_power_w,reactive_power_var\n"
    with pytest.raises(MeasurementError, match="row 2: given twice"):
        read_load_table(table(tmp_path / "l.csv", f"{head}three,,1,1\nthree,b,2,2\n"), ROWS, DEFAULT)
    with pytest.raises(InputError, match="no loads"):
        read_load_table(table(tmp_path / "l.csv", head), ROWS, DEFAULT)


def test_another_separator_is_told_by_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found meter;quantity;value"):
        read_reading_table(table(tmp_path / "r.csv", "meter;quantity;value\none;voltage;230\n"))
