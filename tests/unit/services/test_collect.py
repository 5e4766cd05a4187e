"""Intervals go when complete, overtaken or overdue; nothing is handed out twice."""

from hypothesis import given
from hypothesis import strategies as st

from flexmeter.services.collect import Collector


def test_an_interval_goes_when_all_sources_are_in() -> None:
    collector: Collector[int] = Collector({"a", "b"})
    assert collector.add(1, "a", 10) == []
    (ready,) = collector.add(1, "b", 20)
    assert (ready.time_ms, ready.items, ready.missing) == (1, {"a": 10, "b": 20}, frozenset())


def test_a_complete_later_interval_takes_an_overtaken_one_with_it() -> None:
    collector: Collector[int] = Collector({"a", "b"})
    collector.add(1, "a", 10)
    collector.add(2, "a", 11)
    first, second = collector.add(2, "b", 21)
    assert (first.time_ms, first.missing) == (1, {"b"})
    assert (second.time_ms, second.missing) == (2, frozenset())
    assert collector.add(1, "b", 20) == []
    assert collector.late == 1


def test_the_deadline_lets_an_incomplete_interval_go() -> None:
    collector: Collector[int] = Collector({"a", "b"})
    collector.add(5, "a", 1)
    (ready,) = collector.release(5)
    assert ready.missing == {"b"}
    assert collector.waiting == ()


def test_strangers_and_repetitions_are_ignored() -> None:
    collector: Collector[int] = Collector({"a", "b"})
    collector.add(1, "stranger", 0)
    collector.add(1, "a", 1)
    collector.add(1, "a", 2)
    (ready,) = collector.add(1, "b", 3)
    assert ready.items == {"a": 1, "b": 3}


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), max_size=200))
def test_memory_is_bounded_and_every_interval_goes_once(arrivals: list[tuple[int, str]]) -> None:
    collector: Collector[int] = Collector("abc", most=4)
    gone = []
    for time_ms, source in arrivals:
        gone += [ready.time_ms for ready in collector.add(time_ms, source, 0)]
        assert len(collector.waiting) <= 4
    gone += [ready.time_ms for ready in collector.release(100)]
    assert len(gone) == len(set(gone))
    assert set(gone) <= {time_ms for time_ms, _ in arrivals}
