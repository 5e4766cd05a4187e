"""Decision under uncertainty: what the estimator's covariance of the bus powers makes of an expected gain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from flexmeter.errors import InputError
from flexmeter.reconfiguration.flow import tree_losses
from flexmeter.reconfiguration.goals import Aim, Constraints
from flexmeter.reconfiguration.network import BASE_VA, BoolArray, FeederNetwork, FloatArray
from flexmeter.reconfiguration.score import case_flow, evaluate
from flexmeter.reconfiguration.search import pose
from flexmeter.reconfiguration.sensitivity import loss_gradient
from flexmeter.reconfiguration.sweep import flat, new_tree


@dataclass(frozen=True)
class Gain:
    """Gain of a proposed tree over the current one, as a normal distribution.

    Attributes
    ----------
    gain_w : reduction of losses at the estimate [W]
    sigma_w : its standard deviation, first order in the bus powers [W]
    probability : P(gain > 0)
    gain_percent, sigma_percent : the same in percent of the current losses (equation 7 of the paper)
    """

    gain_w: float
    sigma_w: float
    probability: float
    gain_percent: float
    sigma_percent: float

    def energy_kwh(self, hours: float) -> tuple[float, float]:
        """Return expected gain and sigma over a horizon of constant power [kWh]."""
        return self.gain_w * hours / 1e3, self.sigma_w * hours / 1e3

    def quantile_w(self, probability: float) -> float:
        """Return the gain that is exceeded with this probability [W]."""
        if not 0.0 < probability < 1.0:
            raise InputError(f"probability is {probability}, expected between 0 and 1")
        return self.gain_w + NormalDist().inv_cdf(1.0 - probability) * self.sigma_w


@dataclass(frozen=True)
class Risk:
    """Share of draws in which a state breaks a limit or has no solution: current and proposed tree."""

    current: float
    proposed: float
    draws: int


def full_covariance(network: FeederNetwork, covariance: ArrayLike) -> FloatArray:
    """Return the (2n, 2n) covariance of (P, Q) of all buses [W^2, W var, var^2].

    Accepts (2n,) standard deviations of independent powers or the (2n, 2n) matrix.

    Raises
    ------
    InputError
        Wrong shape, values that are not finite, not symmetric or a negative variance.
    """
    values = np.asarray(covariance, dtype=np.float64)
    size = 2 * network.bus_count
    if values.shape == (size,):
        values = np.diag(values**2)
    if values.shape != (size, size):
        raise InputError(f"covariance has shape {values.shape}, expected ({size},) sigmas or ({size}, {size})")
    if not np.isfinite(values).all() or not np.allclose(values, values.T) or (np.diag(values) < 0).any():
        raise InputError("covariance must be finite, symmetric and without negative variances")
    return values


def expected_gain(network: FeederNetwork, proposed: BoolArray, covariance: ArrayLike) -> Gain:
    """Return the gain of a proposed tree over the network's present tree and its uncertainty.

    sigma^2 = g' C g with g the difference of the loss gradients of both trees (first-order propagation), so that
    errors which raise both trees' losses alike cancel. Both trees must be radial.

    Parameters
    ----------
    covariance : (2n,) sigmas or (2n, 2n) covariance of the active, then the reactive bus powers
    """
    c = full_covariance(network, covariance)
    losses = tree_losses(network, [network.closed, proposed], network.p_w, network.q_var)[:, 0]
    now, then = (np.concatenate(loss_gradient(network, state)) for state in (network.closed, proposed))
    gradient: FloatArray = now - then
    gain = float(losses[0] - losses[1])
    sigma = math.sqrt(max(float(gradient @ c @ gradient), 0.0))
    probability = NormalDist().cdf(gain / sigma) if sigma > 0 else float(gain > 0)
    scale = 100.0 / float(losses[0]) if losses[0] > 0 else 0.0
    return Gain(gain, sigma, probability, gain * scale, sigma * scale)


def draw_powers(
    network: FeederNetwork, covariance: ArrayLike, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw (draws, n) bus powers [W, var] from the estimate and its covariance."""
    c = full_covariance(network, covariance)
    mean = np.concatenate([network.p_w, network.q_var])
    values, vectors = np.linalg.eigh(c)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    sample = mean + rng.standard_normal((draws, len(mean))) @ root.T
    return sample[:, : network.bus_count], sample[:, network.bus_count :]


def limit_risk(
    network: FeederNetwork,
    proposed: BoolArray,
    covariance: ArrayLike,
    constraints: Constraints,
    *,
    draws: int = 400,
    rng: np.random.Generator,
) -> Risk:
    """Return P(some limit is broken) for the current and the proposed tree, by load flow over the same draws.

    Voltage band and ratings of `constraints` count; a draw without solution counts as broken.
    """
    p, q = draw_powers(network, covariance, draws, rng)
    limits = Constraints(v_min_pu=constraints.v_min_pu, v_max_pu=constraints.v_max_pu, ratings=constraints.ratings)
    shares = [_broken_share(network, state, p, q, limits) for state in (network.closed, proposed)]
    return Risk(shares[0], shares[1], draws)


def _broken_share(
    network: FeederNetwork, closed: BoolArray, p: FloatArray, q: FloatArray, limits: Constraints
) -> float:
    problem = pose(network, Aim(), limits)
    tree = new_tree(network.bus_count)
    flows = np.empty((1, 4, network.bus_count))
    broken = 0
    for case in range(len(p)):
        cases = problem.cases._replace(p=p[case : case + 1] / BASE_VA, q=q[case : case + 1] / BASE_VA)
        flat(problem.feeder, case_flow(flows, 0))
        broken += int(evaluate(problem.feeder, cases, problem.goal, closed, tree, flows).violation > 1e-9)
    return broken / len(p)
