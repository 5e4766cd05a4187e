"""Objectives (equations 1 to 3 of the paper) and constraints of the search, in the units of people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flexmeter.errors import InputError
from flexmeter.reconfiguration.network import BASE_VA, BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.score import Goal

Objective = Literal["losses", "deviation", "infeed", "balance"]
OBJECTIVES: tuple[Objective, ...] = ("losses", "deviation", "infeed", "balance")
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Constraints:
    """Limits of the states a search may propose.

    Attributes
    ----------
    v_min_pu, v_max_pu : voltage band of every bus, of its nominal voltage
    ratings : whether the rated currents of lines and transformers count
    max_operations : switching operations (one per switch) allowed from the current state, None = any number
    operation_cost : price of one operation, in units of the weighted objective (watts when it is losses alone)
    forbidden : states that must not be proposed, each as the names of its open branches
    """

    v_min_pu: float = 0.0
    v_max_pu: float = np.inf
    ratings: bool = True
    max_operations: int | None = None
    operation_cost: float = 0.0
    forbidden: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.v_min_pu < self.v_max_pu:
            raise InputError(f"voltage band {self.v_min_pu} to {self.v_max_pu} pu: expected 0 <= minimum < maximum")
        if self.max_operations is not None and self.max_operations < 0:
            raise InputError(f"max_operations is {self.max_operations}, expected 0 or more")
        if not self.operation_cost >= 0.0:
            raise InputError(f"operation_cost is {self.operation_cost}, expected 0 or more")


@dataclass(frozen=True)
class Terms:
    """The objectives of one state, and by how much its limits are broken.

    Attributes
    ----------
    losses_w : equation 1 of the paper, mean of the load cases [W]
    deviation_pu : equation 2, largest |V - nominal| [pu]
    infeed_w : equation 3, smallest net load behind a substation or HV/MV transformer; negative = reverse flow [W].
        Losses are left out of it, as they would make wasting energy count as local consumption
    balance : sum of (I / rated)^2 over the branches with a rating; sum of I^2 [pu] where no branch has one
    violation : 0 when every limit is kept; volts [pu] outside the band plus relative overloads plus one per
        operation too many and per forbidden state
    """

    losses_w: float
    deviation_pu: float
    infeed_w: float
    balance: float
    violation: float

    @property
    def feasible(self) -> bool:
        """Whether all limits are kept."""
        return self.violation <= 1e-9

    def value_of(self, objective: Objective) -> float:
        """Return one objective as the number that is minimised (W, pu, -W, 1)."""
        return {
            "losses": self.losses_w,
            "deviation": self.deviation_pu,
            "infeed": -self.infeed_w,
            "balance": self.balance,
        }[objective]


@dataclass(frozen=True)
class Aim:
    """What to minimise: `weights` of the objectives, with `ceilings` on some of them (from a lexicographic order).

    Units of the weighted sum: losses and infeed in watts, deviation in pu, balance as it is. An infeed is maximised:
    its term is the negative smallest power.
    """

    weights: Mapping[Objective, float] = field(default_factory=lambda: {"losses": 1.0})
    ceilings: Mapping[Objective, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted((set(self.weights) | set(self.ceilings)) - set(OBJECTIVES))
        if unknown:
            raise InputError(f"objective {', '.join(unknown)}: expected one of {', '.join(OBJECTIVES)}")
        if not self.weights or not all(np.isfinite(w) and w >= 0 for w in self.weights.values()):
            raise InputError("objective weights must be given, finite and not negative")

    @property
    def losses_only(self) -> bool:
        """Whether the screening by estimated losses ranks exchanges rightly."""
        return not self.ceilings and all(name == "losses" or not weight for name, weight in self.weights.items())


def as_goal(network: FeederNetwork, aim: Aim, constraints: Constraints) -> Goal:
    """Return the kernels' form of an aim and its constraints, seen from the network's present state."""
    unit = np.array([BASE_VA, 1.0, BASE_VA, 1.0])
    weight = np.array([aim.weights.get(name, 0.0) for name in OBJECTIVES]) * unit
    ceiling = np.array([aim.ceilings.get(name, np.inf) for name in OBJECTIVES]) / unit
    scale = BASE_VA if aim.losses_only else 1.0
    most = UNLIMITED if constraints.max_operations is None else constraints.max_operations
    infeed = infeed_transformers(network)
    forbidden = [network.closed_vector(state) for state in constraints.forbidden]
    return Goal(
        weight=weight / scale,
        ceiling=ceiling,
        v_min=constraints.v_min_pu,
        v_max=constraints.v_max_pu,
        infeed=infeed,
        infeeds=int(infeed.sum()),
        balance=balance_weights(network),
        base=network.closed.copy(),
        most=most,
        cost=constraints.operation_cost / scale,
        forbidden=np.array(forbidden, dtype=np.bool_).reshape(len(forbidden), network.branch_count),
    )


def infeed_transformers(network: FeederNetwork) -> BoolArray:
    """Mark the transformers that leave a substation bus, (m,): the HV/MV transformers of equation 3, if modelled."""
    slack = np.zeros(network.bus_count, dtype=np.bool_)
    slack[network.slack_buses] = True
    transformer = np.array([kind == "transformer" for kind in network.kind], dtype=np.bool_)
    return np.asarray(transformer & (slack[network.from_bus] | slack[network.to_bus]))


def balance_weights(network: FeederNetwork) -> FloatArray:
    """Return 1 / rated^2 per branch, zero without rating, or ones when no branch is rated, (m,)."""
    rated = network.feeder.rated
    if np.isinf(rated).all():
        return np.ones(network.branch_count)
    return np.asarray(1.0 / rated**2)


def without_ratings(feeder_rated: FloatArray) -> FloatArray:
    """Return ratings that never bind."""
    return np.full_like(feeder_rated, np.inf)
