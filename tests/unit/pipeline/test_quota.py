import asyncio

import pytest

from flexmeter.pipeline import Counters, Quota, metrics_text
from flexmeter.pipeline.quota import Bucket, DeviceQuota


def test_a_bucket_gives_its_rate_over_time_and_bursts_no_higher():
    bucket = Bucket(rate=10, burst=20)
    assert bucket.level(100.0) == 20
    bucket.take(25)
    assert bucket.level(100.0) == -5
    assert bucket.wait_s(100.0) == pytest.approx(0.5)
    assert bucket.wait_s(100.5) == 0
    assert bucket.level(1000.0) == 20


def test_each_device_has_a_quota_of_its_own():
    quota = DeviceQuota(2.0)
    assert [quota.allows("a", 1.0) for _ in range(25)] == [True] * 20 + [False] * 5
    assert quota.allows("b", 1.0)
    assert quota.allows("a", 1.5)
    assert not quota.allows("a", 1.5)


def test_no_quota_is_no_limit():
    quota = DeviceQuota(0.0)
    assert all(quota.allows("a", 0.0) for _ in range(1000))


class Stub:
    tenant = "acme"
    waiting_bytes = 5
    store_error = "away"

    def __init__(self, counters):
        self.counters = counters
        self.sequences = type("Sequences", (), {"missing": 3})()


def test_metrics_add_up_and_name_the_tenant():
    text = metrics_text([Stub(Counters(received=10, stored=5, duplicate=2, rejected=1, queued=2, values_stored=15))])
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['flexmeter_messages_received_total{tenant="acme"}'] == "10"
    assert values['flexmeter_messages_total{tenant="acme",state="duplicate"}'] == "2"
    assert values['flexmeter_store_failing{tenant="acme"}'] == "1"
    assert values['flexmeter_sequence_missing{tenant="acme"}'] == "3"
    named = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert named == typed


def test_what_exceeds_a_device_quota_is_refused_and_what_exceeds_the_tenants_waits(tmp_path):
    import numpy as np

    from flexmeter.messages import COLUMNS, Readings, encode_readings, topics
    from flexmeter.messaging import Message
    from flexmeter.pipeline import DeadLetters, Gathering, InboundPipeline, Outcome

    committed = []

    class Writer:
        async def commit(self, window):
            committed.append(len(window))
            return Outcome([True] * len(window), len(window), 0, 0)

    def message(n):
        values = np.array([[230.0]])
        readings = Readings("d", 1, n, 1_763_834_400_000 + n, (COLUMNS["voltage.a"],), values, meters=("m",))
        return Message(topics.readings("acme", "d"), encode_readings(readings), 1, packet_id=n + 1)

    async def main():
        letters = DeadLetters(tmp_path / "letters")
        pipeline = InboundPipeline(
            "acme",
            Writer(),
            letters,
            now_ms=lambda: 1_763_834_400_000,
            settled=lambda *_: None,
            gathering=Gathering(window_s=0.0),
            quota=Quota(values_per_s=10, device_messages_per_s=2),
        )
        async with asyncio.timeout(60), pipeline:
            pipeline.take([message(n) for n in range(25)])
            while pipeline.counters.queued:
                await asyncio.sleep(0.05)
        assert committed[0] == 10, "a second's worth at once"
        assert len(committed) > 2, "the rest bit by bit"
        assert letters.counts() == {"quota": 5}
        assert pipeline.counters.stored == 20

    asyncio.run(main())
