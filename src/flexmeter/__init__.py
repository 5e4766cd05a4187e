"""Flexmeter: an open smart-metering infrastructure for distribution grids.

Library: `flexmeter.grid` -> `flexmeter.powerflow` -> `flexmeter.estimation`, `flexmeter.reconfiguration`.
Platform: `flexmeter.messages`, `messaging`, `pipeline`, `storage`, `api`; `flexmeter.services` sits at
the edge of both, `flexmeter.scenario` is the reference day. Open `docs/architecture.md` first.
"""

__version__ = "0.1.0"
