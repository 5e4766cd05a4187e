"""`summary.json` and the table *paper | here* of a run (contract: docs/format/summary.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flexmeter.scenario.record import DayRecord, Tracked

PAPER: dict[str, object] = {
    "losses_kwh": {"meshed": 716.0, "fixed": 1283.0, "reconfigured": 749.0},
    "saving_percent": 41.6,
    "changes": 13,
    "reverse_flow_minutes": 252,
    "voltage_error_percent": {"mv": {"max": 0.14}},
    "latency_ms": {
        "mqtt_round_trip": {"median": 140.0, "q1": 110.0, "q3": 150.0},
        "concentrator": {"median": 6.0},
        "lv": {"median": 74.0},
        "mv": {"median": 67.0},
    },
}
"""Figures of the paper, sections 6.2 and 6.3."""


def summarise(record: DayRecord) -> dict[str, object]:
    """Return the content of `summary.json`."""
    losses = record.losses
    kwh = {name: float(getattr(losses, name).sum() / 60) for name in ("meshed", "fixed", "reconfigured", "best_radial")}
    timing = record.timing
    return {
        "schema": 1,
        "grid": record.grid_id,
        "minutes": record.minutes,
        "customers": record.customers,
        "seed": record.seed,
        "switches": record.vectors.shape[1],
        "losses_kwh": kwh,
        "saving_percent": 100 * (1 - kwh["reconfigured"] / kwh["fixed"]) if kwh["fixed"] else 0.0,
        "changes": [{"minute": c.minute, "opened": c.opened, "closed": c.closed} for c in record.changes],
        "reverse_flow_minutes": int(record.reverse_flow.sum()),
        "voltage_error_percent": {
            "mv": _error(record.mv_voltage, record.mv_nominal_v / 3**0.5),
            "lv": _error(record.lv_voltage, record.lv_nominal_v / 3**0.5),
        },
        "calibration": {"mv": _calibration(record.mv_voltage), "lv": _calibration(record.lv_voltage)},
        "power_error_percent": {"substation": _power_error(record.substation_power)},
        "latency_ms": {name: _spread(values) for name, values in timing.latency_ms.items()},
        "messages": _messages(record),
        "rows_stored": record.rows_stored,
        "wall_s": round(timing.wall_s, 3),
        "simulated_s": timing.simulated_s,
        "peak_rss_mb": {name: round(value, 1) for name, value in timing.peak_rss_mb.items()},
        "paper": PAPER,
    }


def _error(tracked: Tracked, nominal: float) -> dict[str, float | None]:
    error = 100 * tracked.error / nominal
    if not np.isfinite(error).any():
        return {"rms": None, "max": None}
    return {"rms": float(np.sqrt(np.nanmean(error**2))), "max": float(np.nanmax(np.abs(error)))}


def _power_error(tracked: Tracked) -> dict[str, float | None]:
    return _error(tracked, float(np.abs(tracked.true).max() or 1.0))


def _calibration(tracked: Tracked) -> dict[str, float | None]:
    z = tracked.standardised
    if not z.size:
        return {"z_mean": None, "z_sd": None}
    return {"z_mean": float(z.mean()), "z_sd": float(z.std())}


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    q1, median, q3, p99 = np.percentile(values, [25, 50, 75, 99])
    return {"median": float(median), "q1": float(q1), "q3": float(q3), "p99": float(p99)}


def _messages(record: DayRecord) -> dict[str, int] | None:
    if record.counts is None:
        return None
    names = ("published", "received", "stored", "duplicate", "rejected", "queued")
    return {name: getattr(record.counts, name) for name in names}


Row = tuple[str, str, str]


def comparison(summary: dict[str, object]) -> list[Row]:
    """Return the rows *what, paper, here* of a summary, ready to print."""
    whole_day = summary["minutes"] == 1440 and summary["grid"] == "reference"
    reference = summary["grid"] == "reference"
    rows = _network_rows(summary, whole_day) if summary["switches"] else []
    rows += [*_estimation_rows(summary, reference), *_latency_rows(summary)]
    if summary["messages"]:
        rows.append(("messages published / stored / lost", "", _message_text(summary["messages"])))
    return rows


def _network_rows(summary: dict[str, object], whole_day: bool) -> list[Row]:
    losses = _as_map(summary["losses_kwh"])
    paper = _as_map(PAPER["losses_kwh"]) if whole_day else {}
    labels = {
        "fixed": "losses, fixed topology [kWh]",
        "reconfigured": "losses, reconfigured [kWh]",
        "best_radial": "losses, best tree of every minute [kWh]",
        "meshed": "losses, ring closed [kWh]",
    }
    rows = [(label, _number(paper.get(name), 0), _number(losses[name], 1)) for name, label in labels.items()]
    changes = summary["changes"]
    count = len(changes) if isinstance(changes, list) else 0
    rows += [
        ("saving [%]", "41.6" if whole_day else "", _number(summary["saving_percent"], 1)),
        ("changes of topology", "13" if whole_day else "", str(count)),
        ("reverse flow at line 13, fixed [min]", "252" if whole_day else "", str(summary["reverse_flow_minutes"])),
    ]
    return rows


def _estimation_rows(summary: dict[str, object], reference: bool) -> list[Row]:
    rows = []
    for level, paper in (("mv", "0.14" if reference else ""), ("lv", "")):
        error = _as_map(_as_map(summary["voltage_error_percent"])[level])
        z = _as_map(_as_map(summary["calibration"])[level])
        name = level.upper()
        rows.append((f"{name} voltage error, largest [%]", paper, _number(error["max"], 3)))
        rows.append((f"{name} voltage error, rms [%]", "", _number(error["rms"], 4)))
        spread = f"{_number(z['z_mean'], 2)} / {_number(z['z_sd'], 2)}"
        rows.append((f"{name} error / sigma, mean / sd (0 / 1)", "", spread))
    return rows


def _latency_rows(summary: dict[str, object]) -> list[Row]:
    rows = []
    labels = {
        "mqtt_round_trip": "MQTT round trip",
        "concentrator": "concentrator estimate",
        "lv": "LV estimate",
        "mv": "MV estimate",
        "end_to_end": "reading to MV estimate",
    }
    paper = _as_map(PAPER["latency_ms"])
    for name, spread in _as_map(summary["latency_ms"]).items():
        known = _as_map(paper.get(name, {})).get("median")
        here = _number(_as_map(spread)["median"], 2)
        rows.append((f"{labels.get(name, name)}, median [ms]", _number(known, 0), here))
    return rows


def _message_text(messages: object) -> str:
    counts: dict[str, int] = messages if isinstance(messages, dict) else {}
    return f"{counts['published']} / {counts['stored']} / {counts['published'] - counts['received']}"


def _as_map(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""
