"""PostgreSQL engine, with TimescaleDB when the server has it: one database per tenant.

In and out: the primitives of `flexmeter.storage.base.Engine`. Open `engine.py` first; `wire.py` has
the binary COPY format, in which columns travel both ways.
"""

from flexmeter.storage.postgresql.engine import PostgresqlEngine
from flexmeter.storage.postgresql.stores import open_postgresql_stores

__all__ = ["PostgresqlEngine", "open_postgresql_stores"]
