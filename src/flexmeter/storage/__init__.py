"""Data Storage of section 3.2: readings and estimates of one tenant, in a database of its own.

In: numbered rows (`flexmeter.messages.rows.Rows`), written once and for all. Out: Arrow tables.
`base.py` has the two interfaces: `Store`, which pipeline and API use, and `Engine`, the few
primitives a database has to offer. `store.py` puts the rules (first value wins, conflicts,
corrections, latest values, roll-ups) on top of any engine. One folder per engine; start with `base.py`.
"""

from flexmeter.storage.base import Store, estimate_source
from flexmeter.storage.query import Resolution, Selection, Span

__all__ = ["Resolution", "Selection", "Span", "Store", "estimate_source"]
