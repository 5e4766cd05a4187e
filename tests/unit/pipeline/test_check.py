import numpy as np
import pytest

from flexmeter.messages import COLUMNS, Estimate, Flag, Quality, Readings, Roster, RosterEntry, SeriesKey
from flexmeter.messages.codec import encode_estimate, encode_readings
from flexmeter.messages.topics import Topic
from flexmeter.pipeline.check import IntegrityCheck, Limits, Refused, UnknownRoster

NOW_MS = 1_763_834_400_000
DEVICE = Topic("readings", "acme", device="con-1")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def columns(*names):
    return tuple(COLUMNS[name] for name in names)


def batch(**change):
    fields = {
        "source": "con-1",
        "boot": 1,
        "seq": 2,
        "time_ms": NOW_MS,
        "columns": columns("voltage.a", "active_power.a"),
        "values": np.array([[230.0, 231.0], [100.0, np.nan]]),
        "meters": ("m1", "m2"),
    }
    return Readings(**(fields | change))


def check(readings, topic=DEVICE, now_ms=NOW_MS, roster=None, limits=None):
    def find(source, hash):
        return roster if roster is not None and roster.hash == hash else None

    return IntegrityCheck("acme", limits or Limits(), find)(topic, encode_readings(readings), now_ms)


def refusal(readings, **options):
    with pytest.raises(Refused) as caught:
        check(readings, **options)
    return caught.value


def test_values_and_series_come_in_the_same_order():
    checked = check(batch())
    assert checked.layout.keys() == [
        SeriesKey("acme", "con-1", "m1", "voltage", "a"),
        SeriesKey("acme", "con-1", "m2", "voltage", "a"),
        SeriesKey("acme", "con-1", "m1", "active_power", "a"),
        SeriesKey("acme", "con-1", "m2", "active_power", "a"),
    ]
    np.testing.assert_array_equal(checked.values, [230, 231, 100, np.nan])
    assert (checked.kind, checked.source, checked.boot, checked.seq) == ("readings", "con-1", 1, 2)


def test_a_roster_gives_meters_and_their_phase():
    roster = Roster(source="con-1", entries=(RosterEntry(meter="m1", phase="b"), RosterEntry(meter="m2")))
    checked = check(batch(meters=(), roster=roster.hash, columns=columns("voltage", "active_power.a")), roster=roster)
    assert [(key.meter, key.phase) for key in checked.layout.keys()] == [  # noqa: SIM118
        ("m1", "b"),
        ("m2", ""),
        ("m1", "a"),
        ("m2", "a"),
    ]


def test_an_unknown_roster_may_still_come():
    with pytest.raises(UnknownRoster):
        check(batch(meters=(), roster="0" * 16))


def test_a_roster_of_another_size_is_refused():
    roster = Roster(source="con-1", entries=(RosterEntry(meter="m1"),))
    assert refusal(batch(meters=(), roster=roster.hash), roster=roster).reason == "roster"


def test_another_devices_topic_is_refused():
    error = refusal(batch(source="con-2"))
    assert (error.reason, error.source, error.seq) == ("source", "con-1", 2)


def test_another_tenants_topic_is_refused():
    assert refusal(batch(), topic=Topic("readings", "other", device="con-1")).reason == "topic"


def test_a_large_message_is_refused_unread():
    assert refusal(batch(), limits=Limits(max_bytes=10)).reason == "too_large"


def test_a_message_that_breaks_the_format_is_refused():
    with pytest.raises(Refused) as caught:
        IntegrityCheck("acme", Limits(), lambda *_: None)(DEVICE, b"{}", NOW_MS)
    assert caught.value.reason == "format"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("voltage.a", -1.0),
        ("voltage.a", 600e3),
        ("active_power.a", 2e9),
        ("frequency", 101.0),
        ("active_energy_import", -1.0),
        ("current.a", np.inf),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(column, value):
    error = refusal(batch(columns=columns(column), values=np.array([[1.0, value]])))
    assert error.reason == "range"
    assert "place 1" in str(error)


def test_limits_of_a_range_are_inside():
    check(batch(columns=columns("voltage.a"), values=np.array([[0.0, 500e3]])))


def test_no_value_at_all_is_refused():
    assert refusal(batch(values=np.full((2, 2), np.nan))).reason == "empty"


@pytest.mark.parametrize("clock", ["real", "simulated"])
@pytest.mark.parametrize("time_ms", [0, 946_684_799_999, 4_102_444_800_000, NOW_MS // 1000])
def test_1970_and_2100_are_refused(clock, time_ms):
    assert refusal(batch(time_ms=time_ms, clock=clock)).reason == "time"


def test_a_real_clock_may_be_behind_but_not_far_ahead():
    check(batch(time_ms=NOW_MS - 300 * DAY_MS))
    assert refusal(batch(time_ms=NOW_MS - 500 * DAY_MS)).reason == "time"
    assert refusal(batch(time_ms=NOW_MS + 3 * HOUR_MS)).reason == "time"


def test_a_clock_an_hour_ahead_is_taken_but_marked():
    assert check(batch(time_ms=NOW_MS + HOUR_MS)).quality_of_all == Quality.CLOCK_UNCERTAIN
    assert check(batch(time_ms=NOW_MS + 1000)).quality_of_all == 0


def test_a_simulated_clock_is_exempt_from_skew_and_marked():
    checked = check(batch(time_ms=NOW_MS + 300 * DAY_MS, clock="simulated"))
    assert checked.quality_of_all == Quality.SIMULATED


def test_quality_bits_reach_their_values():
    checked = check(batch(flags=(Flag(int(Quality.LATE), (1,)),)))
    np.testing.assert_array_equal(checked.quality, [0, Quality.LATE, 0, 0])


def an_estimate(**change):
    fields = {
        "source": "lv-service",
        "boot": 1,
        "seq": 2,
        "grid": "g",
        "level": "lv",
        "area": "lv-3",
        "topology": 0,
        "time_ms": NOW_MS,
        "status": "ok",
        "iterations": 3,
        "objective": 1.0,
        "degrees_of_freedom": 2,
        "elements": ("b1",),
        "columns": columns("voltage.a"),
        "values": np.array([[230.0]]),
        "sigma": np.array([[0.5]]),
    }
    return encode_estimate(Estimate(**(fields | change)))


def test_an_estimate_is_stored_under_its_area_with_sigma():
    topic = Topic("estimate", "acme", level="lv", area="lv-3")
    checked = IntegrityCheck("acme", Limits(), lambda *_: None)(topic, an_estimate(), NOW_MS)
    assert checked.kind == "estimates"
    assert checked.layout.keys() == [SeriesKey("acme", "lv/lv-3", "b1", "voltage", "a")]
    np.testing.assert_array_equal(checked.sigma, [0.5])


def test_an_estimate_on_another_areas_topic_is_refused():
    topic = Topic("estimate", "acme", level="lv", area="lv-4")
    with pytest.raises(Refused) as caught:
        IntegrityCheck("acme", Limits(), lambda *_: None)(topic, an_estimate(), NOW_MS)
    assert caught.value.reason == "topic"
