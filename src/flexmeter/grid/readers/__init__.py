"""Readers of other programs' grid files (paper section 4.4: grid data are the first requirement of an estimator).

In: a file of pandapower, power-grid-model, OpenDSS, MATPOWER or CGMES, or a SimBench code; out: a `Grid` whose
`assumptions` say what the file left open, and that program's own load flow to compare with. Open `formats.py` first.
"""

from flexmeter.grid.readers.dss_text import DssCase, read_dss
from flexmeter.grid.readers.formats import Comparison, Imported, compare_voltages, read_any_grid
from flexmeter.grid.readers.matpower import read_matpower
from flexmeter.grid.readers.opendss import OpenDssCase, read_opendss
from flexmeter.grid.readers.pandapower import grid_from_pandapower, pandapower_voltages, read_pandapower
from flexmeter.grid.readers.power_grid_model import read_power_grid_model
from flexmeter.grid.readers.power_grid_model_files import LoadUpdates, read_power_grid_model_update
from flexmeter.grid.readers.simbench import read_cgmes, read_simbench
from flexmeter.grid.readers.tables import LoadTable, ReadingTable, read_load_table, read_reading_table

__all__ = [
    "Comparison",
    "DssCase",
    "Imported",
    "LoadTable",
    "LoadUpdates",
    "OpenDssCase",
    "ReadingTable",
    "compare_voltages",
    "grid_from_pandapower",
    "pandapower_voltages",
    "read_any_grid",
    "read_cgmes",
    "read_dss",
    "read_load_table",
    "read_matpower",
    "read_opendss",
    "read_pandapower",
    "read_power_grid_model",
    "read_power_grid_model_update",
    "read_reading_table",
    "read_simbench",
]
