"""Feeder networks from files: the project's JSON, MATPOWER case files, pandapower JSON. Start with `read_network`."""

from flexmeter.reconfiguration.readers.files import example, read_loads, read_network
from flexmeter.reconfiguration.readers.json import read_json, write_json
from flexmeter.reconfiguration.readers.matpower import read_matpower
from flexmeter.reconfiguration.readers.pandapower import read_pandapower

__all__ = ["example", "read_json", "read_loads", "read_matpower", "read_network", "read_pandapower", "write_json"]
