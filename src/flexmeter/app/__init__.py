"""The one place that wires the parts into processes; nothing imports it but the command line and the scenario.

`house.py` supervises a whole platform, `store.py` is its process of Event Sources, stores and API, `services.py` runs a
grid service, `topology.py` the Network Topology Service; `process.py` turns such a coroutine into a process.
"""
