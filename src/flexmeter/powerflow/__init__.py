"""Three-phase load flow of distribution grids (paper section 5: load flows behind reconfiguration; section 6: truth).

In: a `Grid` and a switch status vector, compiled once to a `Network`; powers (n_injection, n_scenario). Out: voltages,
currents and losses of every scenario. Open `network.py` first, then `sweep.py` (the method) and `solve.py`.
"""

from flexmeter.powerflow.network import Loop, Network, compile_network
from flexmeter.powerflow.solve import PowerFlowModel, PowerFlowResult, powerflow, prepare
from flexmeter.powerflow.tree import Tree, reduce_network

__all__ = [
    "Loop",
    "Network",
    "PowerFlowModel",
    "PowerFlowResult",
    "Tree",
    "compile_network",
    "powerflow",
    "prepare",
    "reduce_network",
]
