import pytest

from flexmeter.devices import Outbox
from flexmeter.errors import StorageError


def opened(tmp_path, **options):
    return Outbox(tmp_path / "outbox.sqlite", "con-1", **options)


def test_batches_survive_a_restart_in_order_and_go_when_acknowledged(tmp_path):
    outbox = opened(tmp_path)
    outbox.put(1000, 7, [(n, b"%d" % n) for n in range(5)])
    outbox.close()
    outbox = opened(tmp_path)
    found = outbox.between(0, None, 10)
    assert [(one.seq, one.payload) for one in found] == [(n, b"%d" % n) for n in range(5)]
    outbox.delete(found[:3])
    assert (outbox.count, outbox.bytes) == (2, 2)
    assert [one.seq for one in opened(tmp_path).between(0, None, 10)] == [3, 4]


def test_ids_count_all_batches_ever_also_over_a_restart_with_an_empty_outbox(tmp_path):
    outbox = opened(tmp_path)
    outbox.delete(outbox.put(1000, 7, [(n, b"x") for n in range(5)]))
    outbox.close()
    outbox = opened(tmp_path)
    assert (outbox.count, outbox.last_id) == (0, 5)
    assert [one.id for one in outbox.put(1000, 8, [(0, b"x")])] == [6]


def test_every_run_has_a_greater_number_even_if_the_clock_goes_back(tmp_path):
    assert opened(tmp_path).new_boot(100) == 100
    assert opened(tmp_path).new_boot(50) == 101
    assert opened(tmp_path).new_boot(500) == 500


def test_beyond_its_bytes_the_oldest_go_and_are_a_counted_gap(tmp_path):
    outbox = opened(tmp_path, max_bytes=1000)
    for seq in range(20):
        outbox.put(1000, 7, [(seq, bytes(100))])
    assert (outbox.count, outbox.bytes) == (10, 1000)
    assert [one.seq for one in outbox.between(0, None, 100)] == list(range(10, 20))
    (gap,) = outbox.gaps()
    assert (gap.source, gap.boot, gap.first_seq, gap.last_seq, gap.messages, gap.reason) == (
        "con-1",
        7,
        0,
        9,
        10,
        "bytes",
    )


def test_what_is_too_old_goes_and_is_a_counted_gap(tmp_path):
    outbox = opened(tmp_path, max_age_s=10)
    outbox.put(1000, 7, [(0, b"old")])
    outbox.put(12_000, 8, [(0, b"new")])
    assert [one.payload for one in outbox.between(0, None, 10)] == [b"new"]
    assert [(gap.boot, gap.messages, gap.reason) for gap in outbox.gaps()] == [(7, 1, "age")]


def test_a_reported_gap_is_forgotten_but_not_what_was_dropped_since(tmp_path):
    outbox = opened(tmp_path, max_bytes=100)
    outbox.put(1000, 7, [(n, bytes(100)) for n in range(3)])
    (reported,) = outbox.gaps()
    outbox.put(1000, 7, [(3, bytes(100))])
    outbox.forget([reported])
    (rest,) = outbox.gaps()
    assert (rest.first_seq, rest.last_seq, rest.messages) == (2, 2, 1)
    outbox.forget([rest])
    assert outbox.gaps() == []


def test_an_outbox_that_cannot_be_opened_is_one_clear_error(tmp_path):
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(StorageError, match=r"outbox\.sqlite"):
        opened(tmp_path)
