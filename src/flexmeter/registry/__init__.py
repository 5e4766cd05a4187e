"""Assets and Device Manager of section 3.2, as far as needed: tenants, tokens, devices, grids, topology.

In: names and documents. Out: frozen records; all kept in one SQLite file. `open_registry(path)`
opens it. Open `database.py` for the tables, `tokens.py` for who may do what, `topology.py` for the
versioned switch status vector of section 4.3.
"""

from flexmeter.registry.database import Database
from flexmeter.registry.devices import Device, Devices
from flexmeter.registry.grids import Grids, GridVersion
from flexmeter.registry.registry import Registry, open_registry
from flexmeter.registry.tenants import Tenants
from flexmeter.registry.tokens import Principal, Scope, TokenRecord, Tokens
from flexmeter.registry.topology import Topologies, Topology

__all__ = [
    "Database",
    "Device",
    "Devices",
    "GridVersion",
    "Grids",
    "Principal",
    "Registry",
    "Scope",
    "Tenants",
    "TokenRecord",
    "Tokens",
    "Topologies",
    "Topology",
    "open_registry",
]
