"""Network reconfiguration (section 5 of the paper): which branches to open so that the losses are least.

In: a `FeederNetwork` with the bus powers the estimator found. Out: radial states, their losses, and decisions.
`greedy_tree` is the paper's method, `step` its threshold and hold time. Open `network.py` first, then `greedy.py`.
"""

from flexmeter.reconfiguration.flow import (
    StateFlow,
    check_radial,
    meshed_flow,
    meshed_losses,
    radial_flow,
    tree_losses,
)
from flexmeter.reconfiguration.greedy import greedy_tree, greedy_weights, spanning_tree
from flexmeter.reconfiguration.network import FeederNetwork, build_network
from flexmeter.reconfiguration.readers import read_json
from flexmeter.reconfiguration.trees import BestTrees, best_tree, log10_tree_count, spanning_trees
from flexmeter.reconfiguration.trigger import Decision, HoldState, Trigger, gain_percent, step
from flexmeter.reconfiguration.warming import warm

__all__ = [
    "BestTrees",
    "Decision",
    "FeederNetwork",
    "HoldState",
    "StateFlow",
    "Trigger",
    "best_tree",
    "build_network",
    "check_radial",
    "gain_percent",
    "greedy_tree",
    "greedy_weights",
    "log10_tree_count",
    "meshed_flow",
    "meshed_losses",
    "radial_flow",
    "read_json",
    "spanning_tree",
    "spanning_trees",
    "step",
    "tree_losses",
    "warm",
]
