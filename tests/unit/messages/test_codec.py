import json
import math

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexmeter.errors import MessageError
from flexmeter.messages import (
    COLUMNS,
    QUANTITIES,
    Estimate,
    Flag,
    Head,
    Quality,
    Readings,
    Register,
    Roster,
    RosterEntry,
    TopologyAlert,
    decode_estimate,
    decode_notice,
    decode_readings,
    encode_estimate,
    encode_notice,
    encode_readings,
)

ENCODINGS = ("json", "cbor")
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
PLAIN = {
    "version": 1,
    "source": "meter-1",
    "boot": 7,
    "seq": 3,
    "time_ms": 1_763_834_400_000,
    "columns": ["voltage.a", "active_power.a"],
    "values": [[230.1], [512.0]],
    "meters": ["meter-1"],
}


@st.composite
def batches(draw):
    columns = tuple(COLUMNS[name] for name in draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True)))
    meters = tuple(draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)))
    energy = any(QUANTITIES[column.quantity].energy for column in columns)
    number = st.one_of(
        st.just(math.nan), st.floats(-1e6, 1e6, width=64 if energy else 32, allow_nan=False, allow_infinity=False)
    )
    size = len(columns) * len(meters)
    values = np.array(draw(st.lists(number, min_size=size, max_size=size)), dtype=float).reshape(len(columns), -1)
    flags = tuple(
        Flag(int(draw(st.sampled_from(list(Quality)))), tuple(draw(st.lists(st.integers(0, size - 1), min_size=1))))
        for _ in range(draw(st.integers(0, 2)))
    )
    by_roster = draw(st.booleans())
    return Readings(
        source=draw(NAMES),
        boot=draw(st.integers(0, 2**40)),
        seq=draw(st.integers(0, 2**40)),
        time_ms=draw(st.integers(0, 2**42)),
        columns=columns,
        values=values,
        meters=() if by_roster else meters,
        roster="0123456789abcdef" if by_roster else "",
        flags=flags,
        clock=draw(st.sampled_from(["real", "simulated"])),
    )


@given(batches(), st.sampled_from(ENCODINGS))
def test_readings_come_back_as_they_were(readings, encoding):
    back = decode_readings(encode_readings(readings, encoding))
    for field in ("source", "boot", "seq", "time_ms", "columns", "meters", "roster", "clock"):
        assert getattr(back, field) == getattr(readings, field)
    np.testing.assert_array_equal(back.values, readings.values)
    np.testing.assert_array_equal(back.quality(), readings.quality())


@given(st.binary(max_size=200))
@settings(max_examples=150)
def test_random_bytes_are_refused_not_crashed_on(payload):
    for decode in (decode_readings, decode_estimate):
        with pytest.raises(MessageError):
            decode(payload)


@given(batches(), st.sampled_from(ENCODINGS), st.data())
@settings(max_examples=150)
def test_damaged_messages_decode_or_are_refused(readings, encoding, data):
    payload = bytearray(encode_readings(readings, encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = decode_readings(bytes(payload))
    except MessageError:
        return
    assert back.values.shape[0] == len(back.columns)
    assert back.values.dtype == np.float64


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version"),
        ({"source": "a b"}, "source"),
        ({"source": "x" * 65}, "source"),
        ({"seq": -1}, "seq"),
        ({"time_ms": "yesterday"}, "time_ms"),
        ({"columns": ["voltage_kv.a", "active_power.a"]}, "voltage_kv"),
        ({"columns": ["voltage.a", "voltage.a"]}, "once"),
        ({"columns": []}, "columns"),
        ({"values": [[230.1, 1.0], [512.0]]}, "values"),
        ({"values": [[230.1]]}, "values"),
        ({"values": [["230.1"], [512.0]]}, "number|float"),
        ({"values": [[True], [512.0]]}, "number|float"),
        ({"meters": []}, "meters"),
        ({"meters": ["a", "a"]}, "once"),
        ({"meters": ["a/b"]}, "meters"),
        ({"roster": "0123456789abcdef"}, "meters"),
        ({"unit": "kV"}, "unit"),
        ({"quality": [{"flag": "late", "at": [2]}]}, "late"),
        ({"quality": [{"flag": "fine"}]}, "fine"),
        ({"clock": "atomic"}, "clock"),
    ],
)
def test_broken_readings_are_refused_with_the_field(change, says, encoding):
    content = PLAIN | change
    payload = json.dumps(content).encode() if encoding == "json" else cbor2.dumps(content)
    with pytest.raises(MessageError, match=says):
        decode_readings(payload)


@pytest.mark.parametrize("missing", ["version", "source", "boot", "seq", "time_ms", "columns", "values"])
def test_a_missing_field_is_named(missing):
    content = {key: value for key, value in PLAIN.items() if key != missing}
    with pytest.raises(MessageError, match=missing):
        decode_readings(json.dumps(content).encode())


def test_json_refuses_nan_and_cbor_reads_it_as_missing():
    with pytest.raises(MessageError):
        decode_readings(json.dumps(PLAIN | {"values": [[math.nan], [1.0]]}).encode())
    values = cbor2.CBORTag(86, np.array([np.nan, 512.0]).tobytes())
    assert np.isnan(decode_readings(cbor2.dumps(PLAIN | {"values": values})).values[0, 0])


def test_typed_arrays_of_either_byte_order_and_width_read_alike():
    for tag, dtype in ((81, ">f4"), (82, ">f8"), (85, "<f4"), (86, "<f8")):
        values = cbor2.CBORTag(tag, np.array([230.5, 512.0], dtype).tobytes())
        np.testing.assert_array_equal(
            decode_readings(cbor2.dumps(PLAIN | {"values": values})).values, [[230.5], [512.0]]
        )


@pytest.mark.parametrize("content", [cbor2.CBORTag(85, b"123"), cbor2.CBORTag(64, b"1234"), cbor2.CBORTag(85, "text")])
def test_a_broken_typed_array_is_refused(content):
    with pytest.raises(MessageError, match="values"):
        decode_readings(cbor2.dumps(PLAIN | {"values": content}))


def test_energies_need_64_bits_on_the_wire():
    energy = PLAIN | {"columns": ["active_energy_import"], "values": cbor2.CBORTag(85, np.float32(1.5).tobytes())}
    with pytest.raises(MessageError, match="64-bit"):
        decode_readings(cbor2.dumps(energy))
    readings = decode_readings(cbor2.dumps(energy | {"values": [[123_456_789.25]]}))
    assert decode_readings(encode_readings(readings, "cbor")).values[0, 0] == 123_456_789.25


def test_a_duplicate_key_is_refused():
    payload = cbor2.dumps(PLAIN)
    doubled = bytes([payload[0] + 1]) + payload[1:] + cbor2.dumps("seq") + cbor2.dumps(4)
    with pytest.raises(MessageError):
        decode_readings(doubled)


def test_100_meters_with_three_quantities_take_about_1300_bytes():
    columns = tuple(COLUMNS[name] for name in ("voltage", "active_power", "reactive_power"))
    readings = Readings("con-1", 1, 1, 1_763_834_400_000, columns, np.ones((3, 100)), roster="0123456789abcdef")
    assert len(encode_readings(readings)) < 1400


def test_float32_costs_little_against_the_sigma_of_a_class_01_meter():
    values = np.random.default_rng(1).uniform(0.1, 5000, (1, 1000))
    readings = Readings("con-1", 1, 1, 0, (COLUMNS["active_power"],), values, roster="0123456789abcdef")
    back = decode_readings(encode_readings(readings)).values
    assert np.max(np.abs(back - values) / (0.001 * values)) < 1e-4


def an_estimate(**change):
    rng = np.random.default_rng(2)
    covariance = rng.normal(size=(9, 9))
    covariance = covariance @ covariance.T
    covariance[3] = covariance[:, 3] = np.nan
    fields = {
        "source": "lv-1",
        "boot": 1,
        "seq": 2,
        "grid": "reference",
        "level": "lv",
        "area": "lv-3",
        "topology": 4,
        "time_ms": 1_763_834_400_000,
        "status": "partly_unobservable",
        "iterations": 4,
        "objective": 12.5,
        "degrees_of_freedom": 10,
        "elements": ("bus.1", "bus.2"),
        "columns": (COLUMNS["voltage.a"], COLUMNS["active_power.a"]),
        "values": np.array([[230.123456789, np.nan], [1.0, 2.0]]),
        "sigma": np.array([[0.1, np.nan], [3.0, 4.0]]),
        "head": Head(rng.normal(size=9), covariance),
        "clock": "simulated",
    }
    return Estimate(**(fields | change))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_estimate_comes_back_to_the_last_bit(encoding):
    estimate = an_estimate()
    back = decode_estimate(encode_estimate(estimate, encoding))
    for field in ("source", "grid", "level", "area", "topology", "status", "elements", "columns", "objective", "clock"):
        assert getattr(back, field) == getattr(estimate, field)
    np.testing.assert_array_equal(back.values, estimate.values)
    np.testing.assert_array_equal(back.sigma, estimate.sigma)
    np.testing.assert_array_equal(back.head.values, estimate.head.values)
    np.testing.assert_array_equal(back.head.covariance, estimate.head.covariance)
    np.testing.assert_array_equal(back.column("voltage", "a")[0], estimate.values[0])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_estimate_without_objective_or_head_comes_back(encoding):
    back = decode_estimate(encode_estimate(an_estimate(objective=math.nan, head=None), encoding))
    assert math.isnan(back.objective)
    assert back.head is None


@pytest.mark.parametrize(
    "change", [{"sigma": np.array([[-0.1, 1], [1, 1]])}, {"values": np.array([[np.inf, 1], [1, 1]])}]
)
def test_an_impossible_estimate_is_refused(change):
    with pytest.raises(MessageError, match="sigma"):
        decode_estimate(encode_estimate(an_estimate(**change)))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_notices_come_back(encoding):
    alert = TopologyAlert(grid="reference", topology=3, switches=(True, False), time_ms=5)
    assert decode_notice(encode_notice(alert, encoding), TopologyAlert) == alert
    roster = Roster(
        source="con-1",
        entries=(RosterEntry(meter="m1", phase="a", bus="b1", registers=(Register(quantity="voltage", sigma=1.0),)),),
    )
    back = decode_notice(encode_notice(roster, encoding), Roster)
    assert back == roster
    assert back.hash == roster.hash
    assert len(roster.hash) == 16


def test_a_notice_of_another_kind_is_refused():
    alert = TopologyAlert(grid="reference", topology=3, switches=(True, False), time_ms=5)
    with pytest.raises(MessageError):
        decode_notice(encode_notice(alert), Roster)


def test_asking_for_an_absent_column_names_it():
    with pytest.raises(MessageError, match="frequency"):
        decode_readings(json.dumps(PLAIN).encode()).column("frequency")
