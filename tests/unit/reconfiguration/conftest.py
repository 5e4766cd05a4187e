from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flexmeter.reconfiguration import FeederNetwork, build_network, read_json

CASES = Path(__file__).parents[2] / "cases" / "reconfiguration"


@pytest.fixture(scope="session")
def baran33() -> FeederNetwork:
    return read_json(CASES / "baran33.json")


@pytest.fixture(scope="session")
def das70() -> FeederNetwork:
    return read_json(CASES / "das70.json")


@pytest.fixture(scope="session")
def tpc84() -> FeederNetwork:
    return read_json(CASES / "tpc84.json")


@pytest.fixture(scope="session")
def zhang118() -> FeederNetwork:
    return read_json(CASES / "zhang118.json")


@pytest.fixture(scope="session")
def ring() -> FeederNetwork:
    return read_json(CASES / "ring13.json")


@pytest.fixture(scope="session")
def detailed() -> FeederNetwork:
    """Two transformers with different taps, charged cables, a capacitor, two voltage levels, a tie at each level."""
    return build_network(
        bus_ids=["hv", "a", "b", "c", "d"],
        branch_ids=["t1", "t2", "l1", "l2", "l3"],
        from_bus=["hv", "hv", "a", "b", "c"],
        to_bus=["a", "b", "c", "d", "d"],
        r_ohm=[0.05, 0.06, 0.4, 0.5, 0.3],
        x_ohm=[0.8, 0.9, 0.3, 0.4, 0.2],
        nominal_voltage_v=[110e3, 15e3, 15e3, 15e3, 15e3],
        slack_buses=["hv"],
        p_w=[0.0, 0.0, 1e6, 2e6, 1.5e6],
        q_var=[0.0, 0.0, 3e5, 8e5, 5e5],
        slack_voltage_v=112e3,
        closed=[True, True, True, True, False],
        charging_s=[0.0, 0.0, 2e-4, 3e-4, 1e-4],
        ratio=[1.02, 0.99, 1.0, 1.0, 1.0],
        kind=["transformer", "transformer", "line", "line", "line"],
        shunt_b_s=[0.0, 0.0, 0.0, 1e-3, 0.0],
    )


@dataclass(frozen=True)
class Day:
    """The reference day without noise: (1440, 13) bus powers and the figures of the calibration."""

    p_w: NDArray[np.float64]
    q_var: NDArray[np.float64]
    expected: dict[str, float]


@pytest.fixture(scope="session")
def day(ring: FeederNetwork) -> Day:
    return smooth_day(ring)


def smooth_day(ring: FeederNetwork) -> Day:
    """Build the day from the parameters of the case."""
    case = json.loads((CASES / "ring13.json").read_text())
    minute = np.arange(1440)
    p = np.zeros((1440, ring.bus_count))
    q = np.zeros_like(p)
    position = {bus: i for i, bus in enumerate(ring.bus_ids)}
    household = np.interp(minute, np.arange(96) * 15, case["household_kw"], period=1440)
    for bus, mean_kw in case["residential_mean_kw"].items():
        p[:, position[bus]] = mean_kw * 1e3 * household / household.mean()
        q[:, position[bus]] = p[:, position[bus]] * np.tan(np.arccos(0.95))
    for bus, plant in case["industrial"].items():
        p[:, position[bus]] = plant["rated_mw"] * 1e6 * shift_work(minute, plant["shape"])
        q[:, position[bus]] = p[:, position[bus]] * np.tan(np.arccos(plant["pf"]))
    pv = case["pv"]
    height = np.cos(np.pi / 2 * np.clip((minute - pv["noon_min"]) / pv["half_day_min"], -1, 1))
    p[:, position["MV_008"]] = -pv["peak_mw"] * 1e6 * np.maximum(height, 0.0) ** pv["exponent"]
    return Day(p, q, case["expected"])


def shift_work(minute: NDArray[np.int64], s: dict[str, float]) -> NDArray[np.float64]:
    """Ramps between night, morning, afternoon and evening, with a half-sine lunch dip."""
    lunch = np.clip((minute - s["lunch_start_min"]) / s["lunch_min"], 0.0, 1.0)
    up = np.interp(minute, [s["start_min"], s["start_min"] + s["ramp_up_min"]], [s["night"], s["morning"]])
    down = np.interp(minute, [s["end_min"], s["end_min"] + s["ramp_down_min"]], [s["afternoon"], s["evening"]])
    return np.where(lunch < 0.5, up, down) * (1.0 - s["lunch_depth"] * np.sin(np.pi * lunch))
