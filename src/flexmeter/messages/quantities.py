"""Physical quantities of the data format, their units and ranges, and the quality bits."""

from __future__ import annotations

from enum import IntFlag
from typing import Literal

import msgspec

QuantityName = Literal[
    "voltage",
    "current",
    "active_power",
    "reactive_power",
    "frequency",
    "active_energy_import",
    "active_energy_export",
    "reactive_energy_import",
    "reactive_energy_export",
]
Phase = Literal["", "a", "b", "c"]
ABC: tuple[Phase, Phase, Phase] = ("a", "b", "c")


class Quantity(msgspec.Struct, frozen=True):
    """A quantity: its SI unit, the range a value must lie in, and whether it is a counter of energy.

    The ranges say what is possible in a distribution grid, not what is plausible for one meter.
    """

    name: str
    unit: str
    lowest: float
    highest: float
    energy: bool = False


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("voltage", "V", 0.0, 500e3),
        Quantity("current", "A", -100e3, 100e3),
        Quantity("active_power", "W", -1e9, 1e9),
        Quantity("reactive_power", "var", -1e9, 1e9),
        Quantity("frequency", "Hz", 0.0, 100.0),
        Quantity("active_energy_import", "Wh", 0.0, 1e15, energy=True),
        Quantity("active_energy_export", "Wh", 0.0, 1e15, energy=True),
        Quantity("reactive_energy_import", "varh", 0.0, 1e15, energy=True),
        Quantity("reactive_energy_export", "varh", 0.0, 1e15, energy=True),
    )
}


class Quality(IntFlag):
    """Quality bits of a value; 0 is measured and valid.

    On the wire a bit is named by its lower-case name. They map to the quality codes of CIM
    IEC 61968-9 and IEEE 2030.5 (estimated, questionable, edited, ...).
    """

    ESTIMATED = 1
    QUESTIONABLE = 2
    LATE = 4
    CORRECTED = 8
    CLOCK_UNCERTAIN = 16
    SUBSTITUTED = 32
    SIMULATED = 64


QualityName = Literal[
    "estimated",
    "questionable",
    "late",
    "corrected",
    "clock_uncertain",
    "substituted",
    "simulated",
]
