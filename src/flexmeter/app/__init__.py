"""The one place that wires the parts into processes; nothing imports it but the command line and the scenario.

`services.py` runs a grid service, `topology.py` the Network Topology Service, `platform.py` Event Source, store and
API. Each is a coroutine that runs until it is cancelled; `process.py` turns one into a process.
"""
