"""REST API Interface Manager of section 3.2, and the routes of the Network Topology Web Service (4.3).

In: HTTPS requests with a bearer token, which names tenant and scopes. Out: JSON columns, CSV, Parquet
or Arrow; errors as problem+json (RFC 9457). `create_app(platform)` makes the ASGI application,
`serve(app, ...)` runs it in the loop of its caller. Open `app.py` first.
"""

from flexmeter.api.app import create_app
from flexmeter.api.platform import Ingest, Platform, QueryLimits, TopologyAlerting
from flexmeter.api.recommendations import recommendations_router, repeat_verdicts
from flexmeter.api.serve import Served, serve
from flexmeter.api.topology import repeat_alerts, topology_router

__all__ = [
    "Ingest",
    "Platform",
    "QueryLimits",
    "Served",
    "TopologyAlerting",
    "create_app",
    "recommendations_router",
    "repeat_alerts",
    "repeat_verdicts",
    "serve",
    "topology_router",
]
