"""An InfluxDB server of one's own for tests."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from flexmeter.ports import free_ports
from flexmeter.storage.base import Engine
from flexmeter.storage.influxdb import InfluxClient, InfluxEngine

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{http}"
  log-enabled = false
[monitor]
  store-enabled = false
"""


class InfluxHouse:
    can_backup = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = itertools.count()

    def new_database(self) -> str:
        return f"tenant{next(self._numbers)}"

    def open(self, database: str) -> Engine:
        return InfluxEngine.open(InfluxClient(httpx.Client(base_url=self._url, trust_env=False), database))

    def open_backup(self, folder: Path, database: str) -> Engine:
        raise NotImplementedError


@contextmanager
def influxdb_house(folder: Path) -> Iterator[InfluxHouse]:
    program = shutil.which("influxd")
    if program is None:
        pytest.skip("no InfluxDB server installed (Debian: influxdb)")
    ports = dict(zip(("rpc", "http"), free_ports(2), strict=True))
    config = folder / "influxdb.conf"
    config.write_text(CONFIG.format(folder=folder, **ports))
    url = f"http://127.0.0.1:{ports['http']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "run", "-config", config], stdout=log, stderr=log)
    try:
        _wait_for(url, process, folder / "log")
        yield InfluxHouse(url)
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        if process.poll() is not None:
            pytest.fail(f"influxd ended: {log.read_text()[-500:]}")
        try:
            httpx.get(f"{url}/ping", trust_env=False).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
