"""Readings: the columnar batch that a device publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from flexmeter.errors import MessageError
from flexmeter.messages.quantities import Phase, QuantityName

Clock = Literal["real", "simulated"]


class Column(msgspec.Struct, frozen=True, cache_hash=True):
    """One quantity of one phase; written `voltage.a`, or `frequency` with the empty phase.

    In a batch whose roster gives a meter one phase, the empty phase means that phase.
    """

    quantity: QuantityName
    phase: Phase = ""

    @property
    def name(self) -> str:
        """The column as messages write it."""
        return f"{self.quantity}.{self.phase}" if self.phase else self.quantity


COLUMNS: Mapping[str, Column] = {
    column.name: column
    for quantity in get_args(QuantityName)
    for phase in get_args(Phase)
    for column in (Column(quantity, phase),)
}


class Flag(msgspec.Struct, frozen=True):
    """Quality bits of some values: their places in the flattened `values`, none = of all values."""

    quality: int
    at: tuple[int, ...] = ()


class Readings(msgspec.Struct, frozen=True, eq=False):
    """A batch of readings of one instant, all values in SI units, consumption positive.

    Attributes
    ----------
    source : name of the publishing device.
    boot, seq : start of the device's run [s UTC or a counter] and number of the batch in this run.
    time_ms : [ms UTC] the instant, end of the interval for mean values.
    columns : what the rows of `values` hold, each column once.
    values : (columns, meters) [SI unit of the column's quantity], nan = no reading.
    meters : names of the meters, or empty with `roster` set.
    roster : hash of the retained roster that lists the meters.
    flags : quality bits that differ from 0.
    clock : `simulated` exempts the time from the check against the platform's clock.
    """

    source: str
    boot: int
    seq: int
    time_ms: int
    columns: tuple[Column, ...]
    values: NDArray[np.float64]
    meters: tuple[str, ...] = ()
    roster: str = ""
    flags: tuple[Flag, ...] = ()
    clock: Clock = "real"

    def column(self, quantity: QuantityName, phase: Phase = "") -> NDArray[np.float64]:
        """Return the values of a column (a view); raise `MessageError` if the batch has no such one."""
        row: NDArray[np.float64] = self.values[find_column(self.columns, quantity, phase)]
        return row

    def quality(self) -> NDArray[np.uint8]:
        """Return the quality bits, in the shape of `values`."""
        bits = np.zeros(self.values.size, dtype=np.uint8)
        for flag in self.flags:
            bits[list(flag.at) if flag.at else slice(None)] |= np.uint8(flag.quality)
        return bits.reshape(self.values.shape)


def find_column(columns: Sequence[Column], quantity: QuantityName, phase: Phase) -> int:
    """Return the place of a column; raise `MessageError` without one."""
    try:
        return columns.index(Column(quantity, phase))
    except ValueError:
        raise MessageError(f"no column {quantity} of phase {phase!r} in the message") from None
