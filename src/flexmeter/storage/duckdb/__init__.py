"""DuckDB engine, the default: one file per tenant, owned by one process.

In and out: the primitives of `flexmeter.storage.base.Engine`. Open `engine.py` first;
`schema.py` has the tables, `tables.py` the way of columns into and out of DuckDB.
"""

from flexmeter.storage.duckdb.engine import DuckdbEngine, DuckdbOptions
from flexmeter.storage.duckdb.stores import open_duckdb_stores

__all__ = ["DuckdbEngine", "DuckdbOptions", "open_duckdb_stores"]
