"""Network reconfiguration (section 5 of the paper): which branches to open so that the losses are least.

In: a `FeederNetwork` with the bus powers the estimator found, and their covariance. Out: radial states with their
losses, proofs, decisions and plans. `greedy_tree` is the paper's method and `step` its threshold and hold time;
`search` finds better trees. Open `network.py` first, then `greedy.py` and `search.py`.
"""

from flexmeter.reconfiguration.adapter import network_from_grid, switch_vector
from flexmeter.reconfiguration.bounds import Bound, prove
from flexmeter.reconfiguration.criterion import Criterion, refusal
from flexmeter.reconfiguration.dayahead import DayPlan, plan_day
from flexmeter.reconfiguration.figures import Figures, balanced_figures
from flexmeter.reconfiguration.flow import (
    StateFlow,
    check_radial,
    meshed_flow,
    meshed_losses,
    radial_flow,
    tree_losses,
)
from flexmeter.reconfiguration.goals import Aim, Constraints, Terms
from flexmeter.reconfiguration.greedy import greedy_tree, greedy_weights, spanning_tree
from flexmeter.reconfiguration.network import FeederNetwork, build_network
from flexmeter.reconfiguration.objectives import lexicographic, pareto
from flexmeter.reconfiguration.phases import PhaseModel, solved_figures
from flexmeter.reconfiguration.policy import Action, Evidence, Policy, PolicyState, Recommendation
from flexmeter.reconfiguration.readers import example, read_json, read_network, write_json
from flexmeter.reconfiguration.restoration import Restoration, restore
from flexmeter.reconfiguration.search import Budget, SearchResult, search
from flexmeter.reconfiguration.sensitivity import loss_gradient
from flexmeter.reconfiguration.sequence import Sequence, Step, plan_sequence
from flexmeter.reconfiguration.trees import BestTrees, best_tree, log10_tree_count, spanning_trees
from flexmeter.reconfiguration.trigger import Decision, HoldState, Trigger, gain_percent, step
from flexmeter.reconfiguration.uncertainty import Gain, Risk, draw_powers, expected_gain, limit_risk
from flexmeter.reconfiguration.warming import warm

__all__ = [
    "Action",
    "Aim",
    "BestTrees",
    "Bound",
    "Budget",
    "Constraints",
    "Criterion",
    "DayPlan",
    "Decision",
    "Evidence",
    "FeederNetwork",
    "Figures",
    "Gain",
    "HoldState",
    "PhaseModel",
    "Policy",
    "PolicyState",
    "Recommendation",
    "Restoration",
    "Risk",
    "SearchResult",
    "Sequence",
    "StateFlow",
    "Step",
    "Terms",
    "Trigger",
    "balanced_figures",
    "best_tree",
    "build_network",
    "check_radial",
    "draw_powers",
    "example",
    "expected_gain",
    "gain_percent",
    "greedy_tree",
    "greedy_weights",
    "lexicographic",
    "limit_risk",
    "log10_tree_count",
    "loss_gradient",
    "meshed_flow",
    "meshed_losses",
    "network_from_grid",
    "pareto",
    "plan_day",
    "plan_sequence",
    "prove",
    "radial_flow",
    "read_json",
    "read_network",
    "refusal",
    "restore",
    "search",
    "solved_figures",
    "spanning_tree",
    "spanning_trees",
    "step",
    "switch_vector",
    "tree_losses",
    "warm",
    "write_json",
]
