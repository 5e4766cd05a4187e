import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import power_grid_model
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power_grid_model.utils import json_deserialize
from reader_checks import largest_difference_pu, voltages

from flexmeter.errors import GridError, InputError
from flexmeter.grid import Grid, write_grid
from flexmeter.grid.readers import read_any_grid, read_power_grid_model, read_power_grid_model_update
from flexmeter.grid.readers.power_grid_model import power_grid_model_loads
from flexmeter.grid.writers import power_grid_model_input, write_power_grid_model
from flexmeter.scenario.european_lv import european_lv_grid

CASE = Path(__file__).parents[2] / "cases" / "readers" / "small_pgm.json"


def peer_voltages(text: str) -> dict[int, np.ndarray]:
    """Return |V| (3,) [V] per node of power-grid-model's exact load flow."""
    model = power_grid_model.PowerGridModel(json_deserialize(text))
    result = model.calculate_power_flow(symmetric=False, error_tolerance=1e-7)
    nodes = result["node"]
    return dict(zip(nodes["id"].tolist(), nodes["u"], strict=True))


def per_phase(nodes: dict[int, np.ndarray], names: dict[int, str]) -> dict[tuple[str, str], float]:
    return {(names[k], phase): float(u[p]) for k, u in nodes.items() for p, phase in enumerate("abc") if k in names}


def test_load_flow_equals_power_grid_model() -> None:
    grid = read_power_grid_model(CASE)
    peer = peer_voltages(CASE.read_text())
    names = {k: str(k) for k in peer}
    assert largest_difference_pu(grid, per_phase(peer, names)) < 1e-4
    assert {kind.neutral for kind in grid.line_types} == {"none", "everywhere"}  # four-wire matrix kept


def test_equal_without_no_load_branch() -> None:
    """The remaining difference of the case is the transformer's no-load branch and nothing else."""
    document = json.loads(CASE.read_text())
    document["data"]["transformer"][0] |= {"i0": 0.0, "p0": 0.0}
    text = json.dumps(document)
    grid = read_power_grid_model(CASE)
    import msgspec

    bare = msgspec.structs.replace(grid.transformers[0], no_load_loss_w=0.0, no_load_current_percent=0.0)
    grid = msgspec.structs.replace(grid, transformers=(bare,))
    peer = peer_voltages(text)
    assert largest_difference_pu(grid, per_phase(peer, {k: str(k) for k in peer})) < 1e-6


def with_powers(grid: Grid) -> Grid:
    import msgspec

    rng = np.random.default_rng(3)
    loads = tuple(
        msgspec.structs.replace(
            load,
            power_w=tuple(rng.uniform(0, 2000, len(load.phases)).tolist()),
            power_var=tuple(rng.uniform(0, 600, len(load.phases)).tolist()),
        )
        for load in grid.loads
    )
    return msgspec.structs.replace(grid, loads=loads)


def test_written_grid_has_the_same_load_flow_there_and_back(tmp_path: Path) -> None:
    grid = with_powers(european_lv_grid())
    dataset = power_grid_model_input(grid)
    assert dataset.notes == ()
    peer = peer_voltages(json.dumps(dataset.document))
    names = {number: bus for bus, number in dataset.nodes.items()}
    assert largest_difference_pu(grid, per_phase(peer, names)) < 1e-8
    path = tmp_path / "pgm.json"
    assert write_power_grid_model(grid, path) == ()
    back = read_power_grid_model(path)
    assert {load.id: load.phases for load in back.loads} == {load.id: load.phases for load in grid.loads}
    ours, nominal = voltages(back)
    theirs, _ = voltages(grid)
    assert max(abs(ours[node] - theirs[node]) / nominal[node[0]] for node in theirs) < 1e-9


def test_writer_says_what_is_lost(tmp_path: Path) -> None:
    import msgspec

    grid = european_lv_grid()
    load = msgspec.structs.replace(grid.loads[0], v_min_pu=0.9)
    notes = write_power_grid_model(msgspec.structs.replace(grid, loads=(load, *grid.loads[1:])), tmp_path / "x.json")
    assert notes == ("voltage limits of loads are left out",)


def test_update_batch(tmp_path: Path) -> None:
    path = tmp_path / "update.json"
    document = {
        "version": "1.0",
        "type": "update",
        "is_batch": True,
        "attributes": {"sym_load": ["id", "p_specified", "q_specified"]},
        "data": [
            {"sym_load": [[60, 3000.0, 300.0]], "sym_gen": [{"id": 61, "p_specified": 6000.0}]},
            {"asym_load": [{"id": 62, "p_specified": [1.0, 2.0, 3.0], "q_specified": [0.1, 0.2, 0.3]}]},
        ],
    }
    path.write_text(json.dumps(document))
    updates = read_power_grid_model_update(path)
    assert updates.n_scenario == 2
    assert updates.active_power_w["60"][0] == 3000.0
    assert np.isnan(updates.active_power_w["60"][1]).all()
    assert updates.active_power_w["61"][0] == -6000.0
    assert updates.reactive_power_var["62"][1].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": [{"id": 1, "u_rated": 1.0}, {"id": 1, "u_rated": 1.0}]}, "node 1 id"),
        ({"line": [{"id": 2, "from_node": 1, "to_node": 9}]}, "line 2 to_node: 9 is not in the grid"),
        ({"sym_load": [{"id": 2, "node": 1, "p_specified": "x"}]}, "sym_load 2 p_specified: 'x'"),
        ({"asym_load": [{"id": 2, "node": 1, "p_specified": [1, 2]}]}, "expected three numbers"),
        ({"three_winding_transformer": [{"id": 3}]}, "cannot be represented"),
        ({"node": 3}, "expected a list"),
        ({"node": [[1, 2]]}, "expected an object or a list with attributes"),
    ],
)
def test_bad_datasets(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = {"node": [{"id": 1, "u_rated": 400.0}], "source": [{"id": 5, "node": 1}]} | change
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"version": "1.0", "type": "input", "is_batch": False, "attributes": {}, "data": data}))
    with pytest.raises(InputError, match=message):
        read_power_grid_model(path)


def test_an_unknown_load_model_is_a_finding(tmp_path: Path) -> None:
    document = json.loads(CASE.read_text())
    document["data"]["sym_load"][0]["type"] = 7
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(GridError, match="sym_load 60 type: 7, expected 0, 1 or 2"):
        read_power_grid_model(path)


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 70), st.floats(), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_changed_datasets_give_a_grid_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    document = json.loads(CASE.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place: object = document
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            inner = place[key]  # type: ignore[index]
            if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 5)) == 0:
                place[key] = data.draw(_VALUES)  # type: ignore[index]
                break
            place = inner
    path = tmp_path_factory.mktemp("fuzz") / "grid.json"
    path.write_text(json.dumps(document))
    with suppress(InputError):
        write_grid(read_power_grid_model(path), path)
    with suppress(InputError):
        read_power_grid_model_update(path)


def test_import_compares_with_power_grid_model_itself() -> None:
    imported = read_any_grid(CASE)
    assert largest_difference_pu(imported.grid, imported.reference()) < 1e-4


def transformer_case(path: Path, winding_from: int, winding_to: int, clock: int, p: list[float]) -> Path:
    """Write a case of one transformer with one load at its to-side."""
    data = {
        "node": [{"id": 1, "u_rated": 10e3}, {"id": 2, "u_rated": 400.0}],
        "transformer": [{
            "id": 3, "from_node": 1, "to_node": 2, "from_status": 1, "to_status": 1, "u1": 10e3, "u2": 410.0,
            "sn": 250e3, "uk": 0.04, "pk": 2500.0, "i0": 0.0, "p0": 0.0, "winding_from": winding_from,
            "winding_to": winding_to, "clock": clock, "tap_side": 0, "tap_pos": 0, "tap_min": -1, "tap_max": 1,
            "tap_nom": 0, "tap_size": 0.0,
        }],
        "source": [{"id": 4, "node": 1, "status": 1, "u_ref": 1.02, "sk": 1e12}],
        "asym_load": [{"id": 5, "node": 2, "status": 1, "type": 0, "p_specified": p, "q_specified": [1e3, 0.0, 2e3]}],
    }  # fmt: skip
    path.write_text(json.dumps({"version": "1.0", "type": "input", "is_batch": False, "attributes": {}, "data": data}))
    return path


@pytest.mark.parametrize(("winding_from", "winding_to", "clock"), [(2, 1, 7), (0, 4, 5), (2, 4, 0), (1, 1, 6)])
def test_windings_with_an_earthed_star_or_zigzag(
    tmp_path: Path, winding_from: int, winding_to: int, clock: int
) -> None:
    path = transformer_case(tmp_path / "t.json", winding_from, winding_to, clock, [20e3, 5e3, 12e3])
    imported = read_any_grid(path)
    assert largest_difference_pu(imported.grid, imported.reference()) < 1e-6


@pytest.mark.parametrize(("winding_from", "winding_to", "clock"), [(0, 1, 0), (1, 2, 5), (2, 0, 11)])
def test_a_floating_neutral_is_refused_where_loads_are_unbalanced(
    tmp_path: Path, winding_from: int, winding_to: int, clock: int
) -> None:
    """power-grid-model has no zero-sequence path there: 0.5 pu from a grid whose impedance is made up."""
    path = transformer_case(tmp_path / "t.json", winding_from, winding_to, clock, [20e3, 5e3, 12e3])
    with pytest.raises(GridError, match="no way to the earth current"):
        read_any_grid(path)


def test_update_batches_by_number_reach_loads_with_names(tmp_path: Path) -> None:
    document = json.loads(CASE.read_text())
    component = next(key for key in document["data"] if key.endswith("load"))
    row = document["data"][component][0]
    row["name"] = "house"
    path = tmp_path / "named.json"
    path.write_text(json.dumps(document))
    width = 3 if component.startswith("asym") else 1
    power = [500.0] * 3 if width == 3 else 500.0
    update = {"version": "1.0", "type": "update", "is_batch": True, "attributes": {}}
    batch = tmp_path / "batch.json"
    rows = [{"id": row["id"], "p_specified": power, "q_specified": power}]
    batch.write_text(json.dumps(update | {"data": [{component: rows}]}))
    updates = read_power_grid_model_update(batch, power_grid_model_loads(path))
    assert list(updates.active_power_w) == ["house"]
    batch.write_text(json.dumps(update | {"data": [{component: rows * 2}]}))
    with pytest.raises(InputError, match="given twice in scenario 0"):
        read_power_grid_model_update(batch)
