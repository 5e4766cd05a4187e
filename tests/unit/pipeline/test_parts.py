import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexmeter.errors import MessageError, StorageError
from flexmeter.messages import Roster, RosterEntry, encode_notice
from flexmeter.messages.topics import Topic
from flexmeter.pipeline import Counters, DeadLetter, DeadLetters
from flexmeter.pipeline.rosters import Rosters
from flexmeter.pipeline.sequences import Sequences

TOPIC = Topic("roster", "acme", device="con-1")


@given(st.sets(st.integers(0, 60), min_size=1), st.randoms())
def test_what_is_missing_is_what_lies_between_and_was_not_seen(seen, random):
    first = min(seen)
    rest = sorted(seen - {first}, key=lambda _: random.random())
    sequences = Sequences()
    for seq in [first, *rest]:
        sequences.see("readings", "con-1", 1, seq)
    expected = len(set(range(first, max(seen) + 1)) - seen)
    assert sequences.missing == expected
    assert sequences.by_source() == ({"con-1": expected} if expected else {})


def test_runs_and_kinds_are_counted_apart():
    sequences = Sequences()
    for kind, boot, seq in (("readings", 1, 5), ("estimates", 1, 9), ("readings", 2, 0), ("readings", 1, 6)):
        assert not sequences.see(kind, "con-1", boot, seq)
    assert sequences.see("readings", "con-1", 2, 3)
    assert sequences.missing == 2


def test_a_jump_too_far_to_list_is_still_counted():
    sequences = Sequences()
    sequences.see("readings", "con-1", 1, 0)
    sequences.see("readings", "con-1", 1, 10**9 + 1)
    assert sequences.missing == 10**9


def test_dead_letters_survive_and_can_be_found_and_removed(tmp_path):
    path = tmp_path / "letters.sqlite"
    letters = DeadLetters(path)
    letters.add(
        [DeadLetter(n, f"fm/v1/acme/d{n % 2}/readings", ("range", "time")[n % 2], "x", 3, b"abc") for n in range(6)]
    )
    again = DeadLetters(path)
    assert again.counts() == {"range": 3, "time": 3}
    assert [one.time_ms for one in again.find(device="d1")] == [1, 3, 5]
    assert [one.time_ms for one in again.find(reason="range", limit=2)] == [0, 2]
    again.remove([one.id for one in again.find(reason="range")])
    assert again.counts() == {"time": 3}


def test_dead_letters_are_bounded_and_count_what_they_drop(tmp_path):
    letters = DeadLetters(tmp_path / "letters.sqlite", max_bytes=50_000, keep_bytes=1000)
    for n in range(40):
        letters.add([DeadLetter(100 * n + k, "t", "range", "x", 5000, bytes(5000)) for k in range(20)])
    kept = letters.find(limit=10_000)
    assert sum(len(one.payload) for one in kept) <= 50_000
    assert len(kept) + letters.dropped == 800
    assert kept[-1].time_ms == 3919
    assert {(one.size, len(one.payload)) for one in kept} == {(5000, 1000)}


def test_dead_letters_that_cannot_be_written_are_a_storage_error(tmp_path):
    (tmp_path / "letters.sqlite").mkdir()
    with pytest.raises(StorageError, match="dead letters"):
        DeadLetters(tmp_path / "letters.sqlite")


def roster(*meters, source="con-1"):
    return Roster(source=source, entries=tuple(RosterEntry(meter=meter) for meter in meters))


def test_rosters_are_found_by_source_and_hash_also_the_last_ones():
    rosters = Rosters()
    versions = [roster("m1", f"m{n}") for n in range(2, 8)]
    for version in versions:
        rosters.add(TOPIC, encode_notice(version))
    assert rosters.find("con-1", versions[-1].hash) == versions[-1]
    assert rosters.find("con-1", versions[-4].hash) == versions[-4]
    assert rosters.find("con-1", versions[0].hash) is None
    assert rosters.find("con-2", versions[-1].hash) is None


@pytest.mark.parametrize("bad", [roster("m1", source="con-2"), roster(), roster("m1", "m1")])
def test_a_roster_that_cannot_be_is_refused(bad):
    with pytest.raises(MessageError):
        Rosters().add(TOPIC, encode_notice(bad))


def test_counters_add_up():
    total = Counters(received=3, stored=2, rejected=1) + Counters(received=2, duplicate=1, queued=1)
    assert total.reconciled
    assert (total.received, total.stored) == (5, 2)
    assert not Counters(received=1).reconciled
