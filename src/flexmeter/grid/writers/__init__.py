"""Writers of grids in the formats of other programs, so that results can be compared (issue: real grids).

In: a `Grid`; out: power-grid-model JSON or a pandapower net, and a list of what the format could not say. Open
`power_grid_model.py` first.
"""

from flexmeter.grid.writers.pandapower import pandapower_net, write_pandapower
from flexmeter.grid.writers.power_grid_model import power_grid_model_input, write_power_grid_model

__all__ = ["pandapower_net", "power_grid_model_input", "write_pandapower", "write_power_grid_model"]
