"""Numbers of the reference day and of its equipment, each file with its provenance."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec


class RingLine(msgspec.Struct, frozen=True):
    """Line `line` of the ring, from MV bus `line` to the next one."""

    line: int
    length_km: float
    normally_open: bool


class Cable(msgspec.Struct, frozen=True):
    """A cable's positive-sequence (LV: per core) values per km."""

    id: str
    r_ohm_per_km: float
    x_ohm_per_km: float
    rated_current_a: float


class IndustrialShape(msgspec.Struct, frozen=True):
    """Working day of a plant: levels in shares of the rated power, times in minutes after midnight."""

    night: float
    start_min: float
    ramp_up_min: float
    morning: float
    lunch_start_min: float
    lunch_min: float
    lunch_depth: float
    afternoon: float
    end_min: float
    ramp_down_min: float
    evening: float


class Industrial(msgspec.Struct, frozen=True):
    """An industrial load at an MV bus."""

    rated_w: float
    power_factor: float
    shape: IndustrialShape


class Photovoltaic(msgspec.Struct, frozen=True):
    """A PV plant at an MV bus: peak * cos(pi / 2 * (t - noon) / half_day) ** exponent."""

    peak_w: float
    noon_min: float
    half_day_min: float
    exponent: float


class Targets(msgspec.Struct, frozen=True):
    """What the paper publishes about its test day."""

    meshed_kwh: float
    fixed_kwh: float
    reconfigured_kwh: float
    reverse_flow_minutes: int
    changes: int


class ReferenceDay(msgspec.Struct, frozen=True):
    """The parameters of the reference day (data/reference_day.json)."""

    provenance: str
    sources: dict[str, str]
    voltage_v: float
    line_type: Cable
    lines: tuple[RingLine, ...]
    customers: dict[str, int]
    household_power_factor: float
    industrial: dict[str, Industrial]
    pv: dict[str, Photovoltaic]
    household_mean_kw: tuple[float, ...]
    targets: Targets


class TransformerUnit(msgspec.Struct, frozen=True):
    """One standard unit."""

    rated_power_va: float
    no_load_loss_w: float
    load_loss_w: float


class Transformers(msgspec.Struct, frozen=True):
    """Standard units and how they are chosen."""

    units: tuple[TransformerUnit, ...]
    uk_percent: float
    no_load_current_percent: float
    tap_step_percent: float
    tap_position: int
    design_va_per_customer: float


class Components(msgspec.Struct, frozen=True):
    """Equipment of the low-voltage grids (data/components.json)."""

    provenance: str
    mains_cable: Cable
    service_cable: Cable
    transformers: Transformers


def data_bytes(name: str) -> bytes:
    """Return a file of this package's data."""
    return (resources.files(__name__) / name).read_bytes()


@cache
def reference_day() -> ReferenceDay:
    """Return the parameters of the reference day."""
    return msgspec.json.decode(data_bytes("reference_day.json"), type=ReferenceDay)


@cache
def components() -> Components:
    """Return the equipment of the low-voltage grids."""
    return msgspec.json.decode(data_bytes("components.json"), type=Components)
