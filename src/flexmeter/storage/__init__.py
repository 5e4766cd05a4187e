"""Data Storage of section 3.2: readings and estimates of one tenant, in a database of its own.

In: numbered rows (`flexmeter.messages.rows.Rows`), written once and for all. Out: Arrow tables.
`base.py` has the two interfaces: `Store`, which pipeline and API use, and `Engine`, the few
primitives a database has to offer. `store.py` puts the rules (first value wins, conflicts,
corrections, latest values, roll-ups) on top of any engine. One folder per engine, default
`duckdb.open_duckdb_stores(folder)`. Open `base.py` first.
"""

from flexmeter.storage.archive import Archive
from flexmeter.storage.base import Store, estimate_source
from flexmeter.storage.query import Resolution, Selection, Span
from flexmeter.storage.rollups import Retention
from flexmeter.storage.store import TenantStore
from flexmeter.storage.tenants import TenantStores

__all__ = [
    "Archive",
    "Resolution",
    "Retention",
    "Selection",
    "Span",
    "Store",
    "TenantStore",
    "TenantStores",
    "estimate_source",
]
