"""ClickHouse engine, for what one machine cannot hold: one database per tenant.

In and out: the primitives of `flexmeter.storage.base.Engine`. Open `engine.py` first; `schema.py` has
the tables, `client.py` the way over HTTP. The statements are checked in-process with chdb, the same
engine; a cluster (`ReplicatedReplacingMergeTree`) has not been tested.
"""

from flexmeter.storage.clickhouse.client import ClickhouseClient, HttpClient
from flexmeter.storage.clickhouse.engine import ClickhouseEngine

__all__ = ["ClickhouseClient", "ClickhouseEngine", "HttpClient"]
