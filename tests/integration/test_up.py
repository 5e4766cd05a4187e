"""`flexmeter up` as a user runs it, in both ways of ingest."""

import asyncio
import contextlib

import numpy as np
import pytest

from flexmeter.app.arena import TENANT, prepare, running, stored_times
from flexmeter.app.backup import back_up, restore
from flexmeter.app.checkup import check_up
from flexmeter.app.edge import device_client
from flexmeter.app.load import Numbered
from flexmeter.config import read_config
from flexmeter.errors import InputError
from flexmeter.messages import Readings, encode_readings, topics
from flexmeter.messages.readings import COLUMNS

NOW_MS = 1_763_834_400_000


def posted(seq):
    readings = Readings(
        "http-1", 1, seq, NOW_MS + seq, (COLUMNS["voltage.a"],), np.array([[230.0]]), meters=("m1",), clock="simulated"
    )
    return encode_readings(readings, "json")


@pytest.mark.parametrize("changes", [{}, {"mode": '"stream"', "sources": "2"}], ids=["direct", "stream"])
def test_what_is_sent_is_stored_accounted_for_and_backed_up(tmp_path, changes):
    async def test():
        config = prepare(tmp_path / "house", ["dev-0"], changes)
        file = config.folder / "flexmeter.toml"
        async with asyncio.timeout(200), running(config) as arena, contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(device_client(config, TENANT, "dev-0", patience_s=20))
            device = Numbered(TENANT, "dev-0", client, 1, NOW_MS)
            for _ in range(50):
                await (await device.publish())
            await client.publish(topics.readings(TENANT, "dev-0"), b"nonsense")
            async with arena.api() as api:
                for seq in (0, 1, 1):
                    answer = await api.post("/api/v1/readings", content=posted(seq))
                    assert answer.is_success, answer.text
                assert (await api.post("/api/v1/readings", content=b"{}")).status_code == 422
            await arena.drained()
            metrics = await arena.metrics()
            state = 'flexmeter_messages_total{tenant="proof",state="%s"}'
            while metrics[state % "stored"] < 52:
                await asyncio.sleep(0.1)
                metrics = await arena.metrics()
            received = metrics['flexmeter_messages_received_total{tenant="proof"}']
            parts = [metrics[state % name] for name in ("stored", "duplicate", "rejected")]
            assert received == sum(parts) + metrics['flexmeter_messages_queued{tenant="proof"}']
            checks = await asyncio.to_thread(check_up, file)
            wrong = [one for one in checks if not one.ok and not one.name.startswith("sequence")]
            assert wrong == []
            files = await back_up(config, file, tmp_path / "copy")
            assert "data/stores/proof.duckdb" in files
        times, twice = stored_times(config, "dev-0")
        assert (times.size, twice) == (50, 0)
        counted = restore(tmp_path / "copy", tmp_path / "again")
        assert counted[TENANT] == 50 * 3 + 2
        times, twice = stored_times(read_config(tmp_path / "again" / "flexmeter.toml"), "dev-0")
        assert (times.size, twice) == (50, 0)
        with pytest.raises(InputError, match="empty folder"):
            restore(tmp_path / "copy", tmp_path / "again")

    asyncio.run(test())


def test_a_nearly_full_disk_closes_the_doors_before_it_is_full(tmp_path):
    """No space is free enough for this configuration: nothing is acknowledged, and doctor says why."""

    async def test():
        config = prepare(tmp_path / "house", ["dev-0"], {"min_free_mb": str(2**40)})
        async with asyncio.timeout(100), running_without_doors(config) as _:
            while "disk_nearly_full" not in (config.folder / "up.log").read_text():
                await asyncio.sleep(0.05)
            checks = {one.name: one for one in await asyncio.to_thread(check_up, config.folder / "flexmeter.toml")}
            assert not checks["disk"].ok
            assert "stops accepting" in checks["disk"].detail
            assert not checks["broker"].ok

    asyncio.run(test())


@contextlib.asynccontextmanager
async def running_without_doors(config):
    import sys

    from flexmeter.app.arena import AS_INSTALLED
    from flexmeter.supervision import Program, Supervisor

    command = [sys.executable, "-m", "flexmeter", "up", "--config", str(config.folder / "flexmeter.toml")]
    async with Supervisor() as supervisor:
        yield await supervisor.start(
            Program("up", command, config.folder / "up.log", environment=AS_INSTALLED, stop_s=30)
        )
