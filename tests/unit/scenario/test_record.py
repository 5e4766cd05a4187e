"""Summary, table, figures and report of a made-up record."""

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from flexmeter.grid import Bus, Grid, Line, Source, Switch, line_type_from_sequence
from flexmeter.scenario.figures import draw_all
from flexmeter.scenario.record import (
    Change,
    Counts,
    DayRecord,
    Deviation,
    Losses,
    Timing,
    Tracked,
    Unmonitored,
    changes_of,
)
from flexmeter.scenario.report import write_report
from flexmeter.scenario.summary import comparison, summarise

MINUTES = 120


@pytest.fixture
def grid() -> Grid:
    cable = line_type_from_sequence("c", r1_ohm_per_km=0.2, x1_ohm_per_km=0.1, r0_ohm_per_km=0.8, x0_ohm_per_km=0.4)
    buses = (Bus("1", 15e3, x_m=0, y_m=0), Bus("2", 15e3, x_m=1, y_m=0), Bus("3", 15e3, x_m=0, y_m=1))
    lines = (Line("l1", "1", "2", "c", 1), Line("l2", "2", "3", "c", 1), Line("l3", "3", "1", "c", 1))
    switches = (Switch("s1", "l1"), Switch("s2", "l2", closed=False), Switch("s3", "l3"))
    return Grid(
        "ring", buses=buses, line_types=(cable,), lines=lines, switches=switches, sources=(Source("s", "1", 15e3),)
    )


@pytest.fixture
def record() -> DayRecord:
    rng = np.random.default_rng(3)

    def tracked(rows: int, level: float, sigma: float) -> Tracked:
        true = np.full((rows, MINUTES), level)
        return Tracked(true, true + sigma * rng.standard_normal(true.shape), np.full(true.shape, sigma))

    vectors = np.ones((MINUTES, 3), bool)
    vectors[:60, 1] = False
    vectors[60:, 0] = False
    losses = Losses(*(np.full(MINUTES, level) for level in (10.0, 20.0, 12.0, 11.0)))
    return DayRecord(
        grid_id="ring",
        seed=3,
        customers=7,
        minutes=MINUTES,
        mv_nodes=tuple((bus, phase) for bus in "123" for phase in "abc"),
        mv_nominal_v=15e3,
        lv_nominal_v=400.0,
        mv_voltage=tracked(9, 8660.0, 2.0),
        lv_voltage=tracked(30, 231.0, 0.1),
        substation_power=tracked(3, 1e6, 500.0),
        vectors=vectors,
        changes=changes_of(vectors, ("l1", "l2", "l3")),
        losses=losses,
        deviation=Deviation(losses.meshed / 10, losses.fixed / 10, losses.reconfigured / 10),
        reverse_flow=np.arange(MINUTES) < 25,
        unmonitored=Unmonitored("3", *(np.full(MINUTES, level) for level in (100.0, 120.0, 105.0, 10.0))),
        counts=Counts(10, 10, 9, 1, 0, 0),
        timing=Timing({name: np.linspace(1, 2, 50) for name in ("mqtt_round_trip", "concentrator", "lv", "mv")}, 3.0),
    )


def test_changes_count_from_the_first_minute_under_the_new_vector(record: DayRecord) -> None:
    assert record.changes == (Change(61, "l1", "l2"),)


def test_summary_holds_the_figures_of_the_record(record: DayRecord) -> None:
    summary = json.loads(json.dumps(summarise(record)))
    assert summary["losses_kwh"] == {"meshed": 20.0, "fixed": 40.0, "reconfigured": 24.0, "best_radial": 22.0}
    assert summary["saving_percent"] == pytest.approx(40)
    assert summary["reverse_flow_minutes"] == 25
    assert summary["changes"] == [{"minute": 61, "opened": "l1", "closed": "l2"}]
    assert abs(summary["calibration"]["mv"]["z_mean"]) < 0.1
    assert summary["calibration"]["lv"]["z_sd"] == pytest.approx(1, abs=0.05)
    assert summary["latency_ms"]["lv"]["median"] == pytest.approx(1.5)
    assert summary["messages"]["stored"] == 9


def test_paper_figures_stand_only_beside_the_whole_reference_day(record: DayRecord) -> None:
    rows = {what: paper for what, paper, _ in comparison(summarise(record))}
    assert rows["losses, fixed topology [kWh]"] == ""
    assert rows["MV voltage error, largest [%]"] == ""
    whole = {**summarise(record), "grid": "reference", "minutes": 1440}
    rows = {what: paper for what, paper, _ in comparison(whole)}
    assert rows["losses, fixed topology [kWh]"] == "1283"
    assert rows["MV voltage error, largest [%]"] == "0.14"


def test_a_sigma_of_zero_or_nan_does_not_enter_the_calibration() -> None:
    tracked = Tracked(np.zeros((1, 3)), np.ones((1, 3)), np.array([[1.0, 0.0, np.nan]]))
    assert tracked.standardised.tolist() == [1.0]


def test_every_figure_is_drawn_and_the_report_embeds_it(record: DayRecord, grid: Grid, tmp_path: Path) -> None:
    figures = draw_all(record, grid, tmp_path)
    assert len(figures) == 8
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.values())
    report = tmp_path / "report.html"
    write_report(record, comparison(summarise(record)), figures, report)
    page = report.read_text()
    assert page.count("data:image/png;base64,") == 8
    assert "<td>61</td><td>l1</td><td>l2</td>" in page


def test_a_grid_without_switches_has_no_figures_of_losses(record: DayRecord, grid: Grid, tmp_path: Path) -> None:
    from dataclasses import replace as changed

    still = changed(record, vectors=np.ones((MINUTES, 0), bool), changes=())
    names = set(draw_all(still, replace(grid, switches=()), tmp_path))
    assert not names & {"fig10_losses", "fig11_voltage_deviation"}
