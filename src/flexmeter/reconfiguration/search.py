"""The search for the best radial state: several starts, screened exchange, iterated local search."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import DidNotConverge, InputError
from flexmeter.reconfiguration.exchange import descend, iterate
from flexmeter.reconfiguration.goals import Aim, Constraints, Terms, as_goal, without_ratings
from flexmeter.reconfiguration.greedy import greedy_tree, spanning_tree
from flexmeter.reconfiguration.network import BASE_VA, BoolArray, Feeder, FeederNetwork
from flexmeter.reconfiguration.opening import sequential_opening
from flexmeter.reconfiguration.score import Cases, Goal, Score, better, evaluate
from flexmeter.reconfiguration.sweep import new_tree

Clock = Callable[[], float]
# Sequential opening costs loops * branches * loops; beyond this it takes longer than the descents it would save.
OPENING_LIMIT = 3e7
SCREENED = 2
ROUNDS_AT_ONCE = 5
ROUNDS = 200
WORK = 2.5e6


@dataclass(frozen=True)
class Budget:
    """How long to search after the descents: `rounds` of the iterated local search with random `seed`.

    Without `rounds` their number follows from the size of the network: 200, fewer from some 25,000 buses times ties
    on, 0 for very large networks. The result depends on network, seed and rounds only; with `seconds` and a `clock`
    the rounds also end in time.
    """

    rounds: int | None = None
    seed: int = 1
    seconds: float = np.inf
    clock: Clock | None = None


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The best state found.

    Attributes
    ----------
    closed : (m,) switch status vector
    open_branches : its open branches
    terms : objectives and violation
    starts : losses after the descent from each start [W], infinite without solution
    evaluated : radial states solved by load flow
    """

    closed: BoolArray
    open_branches: tuple[str, ...]
    terms: Terms
    starts: dict[str, float]
    evaluated: int

    @property
    def losses_w(self) -> float:
        """Losses of the state [W]."""
        return self.terms.losses_w


@dataclass(frozen=True, eq=False)
class Problem:
    """A network with load cases and goal in the form of the kernels; made by `pose`."""

    network: FeederNetwork
    feeder: Feeder
    cases: Cases
    goal: Goal
    exact: int

    def score(self, closed: BoolArray) -> Score:
        """Evaluate one state; infinite when it is not radial or has no solution."""
        flows = np.zeros((len(self.cases.share), 4, self.network.bus_count))
        flows[:, 0] = self.feeder.slack_v
        return evaluate(self.feeder, self.cases, self.goal, closed, new_tree(self.network.bus_count), flows)


def pose(
    network: FeederNetwork,
    aim: Aim | None = None,
    constraints: Constraints | None = None,
    *,
    p_w: ArrayLike | None = None,
    q_var: ArrayLike | None = None,
    share: ArrayLike | None = None,
) -> Problem:
    """Bring a problem into the form of the kernels.

    Parameters
    ----------
    p_w, q_var : (t, n) load cases [W, var] instead of the network's own bus powers
    share : (t,) their weights, equal by default
    """
    aim, constraints = aim or Aim(), constraints or Constraints()
    p = np.atleast_2d(network.p_w if p_w is None else np.asarray(p_w, dtype=np.float64))
    q = np.atleast_2d(network.q_var if q_var is None else np.asarray(q_var, dtype=np.float64))
    weights = np.ones(len(p)) if share is None else np.asarray(share, dtype=np.float64)
    if p.shape != (len(weights), network.bus_count) or q.shape != p.shape:
        raise InputError(f"load cases have shapes {p.shape}, {q.shape}, expected ({len(weights)}, {network.bus_count})")
    feeder = network.feeder
    if not constraints.ratings:
        feeder = feeder._replace(rated=without_ratings(feeder.rated))
    cases = Cases(np.ascontiguousarray(p / BASE_VA), np.ascontiguousarray(q / BASE_VA), weights / weights.sum())
    return Problem(network, feeder, cases, as_goal(network, aim, constraints), SCREENED if aim.losses_only else 0)


def search(
    network: FeederNetwork,
    aim: Aim | None = None,
    constraints: Constraints | None = None,
    budget: Budget | None = None,
    *,
    p_w: ArrayLike | None = None,
    q_var: ArrayLike | None = None,
    share: ArrayLike | None = None,
) -> SearchResult:
    """Return the best radial state found: losses first, unless `aim` says otherwise.

    Descents by branch exchange from the current state, the paper's greedy tree, the greedy tree of the least-loss
    flow and sequential opening; then iterated local search from the best of them. A state that breaks a limit never
    beats one that keeps all; among those that break limits the least violation comes first. A state without load
    flow solution is never a candidate. Several load cases are weighted by `share`.

    A network without ties has one state, which is returned. A looped or incomplete present state is treated as the
    wish to keep its closed branches closed.

    Raises
    ------
    DidNotConverge
        No radial state that was tried can supply the loads.
    """
    problem = pose(network, aim, constraints, p_w=p_w, q_var=q_var, share=share)
    return search_posed(problem, budget or Budget())


def search_posed(problem: Problem, budget: Budget) -> SearchResult:
    """Search a posed problem; see `search`."""
    deadline = budget.clock() + budget.seconds if budget.clock else np.inf
    best, score, starts, evaluated = _descend_all(problem)
    random = np.array([1 + budget.seed * 7919 % 2147483646], dtype=np.int64)
    done, most = 0, _rounds(problem.network, budget)
    while done < most:
        if budget.clock and budget.clock() >= deadline:
            break
        rounds = min(ROUNDS_AT_ONCE, most - done)
        score, count = iterate(problem.feeder, problem.cases, problem.goal, best, score, random, rounds, problem.exact)
        evaluated += count
        done += rounds
    # The descent solved it from the voltages of a neighbour; the figures of a state do not depend on the way to it.
    terms = as_terms(problem.score(best))
    return SearchResult(best, problem.network.names_of(~best), terms, starts, evaluated + 1)


def _rounds(network: FeederNetwork, budget: Budget) -> int:
    """Return the rounds of a budget; none where there is nothing to exchange."""
    if not network.tie_count:
        return 0
    if budget.rounds is not None:
        return budget.rounds
    return int(min(ROUNDS, WORK / (network.bus_count * network.tie_count)))


def _descend_all(problem: Problem) -> tuple[BoolArray, Score, dict[str, float], int]:
    """Descend from every start; return the best state, its score, the losses per start and the load flows."""
    best: BoolArray | None = None
    score: Score | None = None
    losses_w, evaluated = {}, 0
    for name, start in start_states(problem.network, problem.cases).items():
        closed = start.copy()
        found, count = descend(problem.feeder, problem.cases, problem.goal, closed, problem.exact)
        losses_w[name] = float(found.terms[0]) * BASE_VA
        evaluated += count
        if score is None or better(found, score):
            best, score = closed, found
    if best is None or score is None or np.isinf(score.value):
        raise DidNotConverge(f"{problem.network.name}: load flow", 0, float("inf"), "every start of the search")
    return best, score, losses_w, evaluated


def start_states(network: FeederNetwork, cases: Cases) -> dict[str, BoolArray]:
    """Return the radial states from which the search descends, by name, each state once."""
    mean = network.with_power(cases.share @ cases.p * BASE_VA, cases.share @ cases.q * BASE_VA)
    states = {"current": spanning_tree(network, np.where(network.closed, 0.0, 1.0))}
    with suppress(DidNotConverge):  # loads that even the closed network cannot supply: the other starts remain
        states["greedy"] = greedy_tree(mean)
    states["resistive greedy"] = greedy_tree(mean, resistive=True)
    if network.tie_count**2 * network.branch_count <= OPENING_LIMIT:
        states["sequential opening"] = sequential_opening(mean)
    seen: dict[bytes, str] = {}
    for name, state in states.items():
        seen.setdefault(state.tobytes(), name)
    return {name: states[name] for name in seen.values()}


def as_terms(score: Score) -> Terms:
    """Return the kernels' score in units."""
    losses, deviation, infeed, balance = (float(term) for term in score.terms)
    return Terms(losses * BASE_VA, deviation, -infeed * BASE_VA, balance, float(score.violation))


def evaluate_state(network: FeederNetwork, closed: BoolArray, constraints: Constraints | None = None) -> SearchResult:
    """Return a given radial state in the form of a search result.

    Raises
    ------
    DidNotConverge
        The state cannot supply the loads.
    """
    score = pose(network, None, constraints).score(closed)
    if np.isinf(score.value):
        raise DidNotConverge(f"{network.name}: load flow", 0, float("inf"), "the given state")
    return SearchResult(closed, network.names_of(~closed), as_terms(score), {}, 1)
