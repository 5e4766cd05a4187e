"""InfluxDB engine, the paper's own choice (section 3.4): one database per tenant.

In and out: the primitives of `flexmeter.storage.base.Engine`, over the v1 HTTP API (line protocol and
InfluxQL), which 1.x speaks, 2.x through a mapping, and 3 Core. Open `engine.py` first; `client.py`
is the way over HTTP, `points.py` the way of columns into points and back.
"""

from flexmeter.storage.influxdb.client import InfluxClient
from flexmeter.storage.influxdb.engine import InfluxEngine
from flexmeter.storage.influxdb.stores import open_influxdb_stores

__all__ = ["InfluxClient", "InfluxEngine", "open_influxdb_stores"]
