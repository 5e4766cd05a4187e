"""When a gain is worth switching: the paper's percentage, energy or money over a horizon, and its probability."""

from __future__ import annotations

from dataclasses import dataclass

from flexmeter.errors import InputError
from flexmeter.reconfiguration.uncertainty import Gain, Risk


@dataclass(frozen=True)
class Criterion:
    """All conditions that are set must hold; the gain is always that over the tree in force.

    Attributes
    ----------
    percent : reduction of losses, eps_L of the paper [percent]
    energy_kwh : energy saved over `horizon_h` [kWh]
    money : value of that energy at `price_per_kwh`, less the cost of the operations
    probability : P(gain > 0) at least
    risk : P(a limit is broken) after switching at most; a tree that lowers the present risk passes as well
    """

    percent: float = 5.0
    energy_kwh: float = 0.0
    money: float | None = None
    price_per_kwh: float = 0.0
    operation_cost: float = 0.0
    horizon_h: float = 1.0
    probability: float = 0.0
    risk: float = 1.0

    def __post_init__(self) -> None:
        if not (self.horizon_h > 0 and 0 <= self.probability <= 1 and 0 <= self.risk <= 1):
            raise InputError("criterion: horizon_h must be positive, probability and risk between 0 and 1")


def refusal(criterion: Criterion, gain: Gain, operations: int, risk: Risk | None = None) -> str:
    """Return why a gain is not worth switching, or nothing if it is."""
    energy, _ = gain.energy_kwh(criterion.horizon_h)
    if not gain.gain_percent > criterion.percent:
        return f"gain {gain.gain_percent:.2f} % is not above {criterion.percent:g} %"
    if energy < criterion.energy_kwh:
        return f"gain {energy:.3f} kWh is below {criterion.energy_kwh:g} kWh"
    if criterion.money is not None:
        profit = energy * criterion.price_per_kwh - operations * criterion.operation_cost
        if profit < criterion.money:
            return f"profit {profit:.2f} is below {criterion.money:g}"
    if gain.probability < criterion.probability:
        return f"P(gain > 0) {gain.probability:.3f} is below {criterion.probability:g}"
    if risk is not None and risk.proposed > criterion.risk and risk.proposed >= risk.current:
        return f"P(limit broken) {risk.proposed:.3f} is above {criterion.risk:g}"
    return ""
