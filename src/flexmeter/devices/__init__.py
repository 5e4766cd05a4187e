"""Device Integration Adapters (paper section 3.1) and the runtime that spools and publishes what they read.

In: an adapter's measurements in SI units. Out: numbered batches in the Flexmeter Data Format over MQTT, kept on disk
until they are acknowledged. Open `adapter.py` first, then `edge.py` and `outbox.py`; one module per protocol.
"""

from flexmeter.devices.adapter import Adapter, Measured, Publisher
from flexmeter.devices.edge import Edge
from flexmeter.devices.lines import LinesAdapter
from flexmeter.devices.outbox import Outbox

__all__ = ["Adapter", "Edge", "LinesAdapter", "Measured", "Outbox", "Publisher"]
