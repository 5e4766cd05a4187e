"""Flexmeter Data Format: what travels between meters, platform and services (section 3.2).

In: bytes of a message, JSON or CBOR. Out: frozen, validated structs; and back. `topics` is the one
place that spells MQTT topics. Open `readings.py` first, then `wire.py` and `codec.py`.
"""

from flexmeter.messages import topics
from flexmeter.messages.codec import (
    decode_estimate,
    decode_notice,
    decode_readings,
    encode_estimate,
    encode_notice,
    encode_readings,
)
from flexmeter.messages.estimate import Estimate, Head
from flexmeter.messages.notices import (
    Gap,
    Notice,
    Register,
    Rejection,
    Roster,
    RosterEntry,
    State,
    TopologyAlert,
)
from flexmeter.messages.quantities import QUANTITIES, Quality, Quantity
from flexmeter.messages.readings import COLUMNS, Column, Flag, Readings
from flexmeter.messages.rows import Rows, SeriesKey, WriteResult

__all__ = [
    "COLUMNS",
    "QUANTITIES",
    "Column",
    "Estimate",
    "Flag",
    "Gap",
    "Head",
    "Notice",
    "Quality",
    "Quantity",
    "Readings",
    "Register",
    "Rejection",
    "Roster",
    "RosterEntry",
    "Rows",
    "SeriesKey",
    "State",
    "TopologyAlert",
    "WriteResult",
    "decode_estimate",
    "decode_notice",
    "decode_readings",
    "encode_estimate",
    "encode_notice",
    "encode_readings",
    "topics",
]
