"""First-order propagation against Monte Carlo and finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from flexmeter.errors import InputError
from flexmeter.reconfiguration import (
    Constraints,
    Criterion,
    FeederNetwork,
    draw_powers,
    expected_gain,
    greedy_tree,
    limit_risk,
    loss_gradient,
    refusal,
    search,
    tree_losses,
)

DRAWS = 3000


def sigmas(network: FeederNetwork, share: float) -> np.ndarray:
    return share * np.abs(np.concatenate([network.p_w, network.q_var]))


def test_gradient_equals_finite_differences(detailed: FeederNetwork, baran33: FeederNetwork) -> None:
    for network in (detailed, baran33):
        by_p, by_q = loss_gradient(network, network.closed)
        for bus in range(0, network.bus_count, 3):
            step = np.zeros(network.bus_count)
            step[bus] = 500.0
            for gradient, change in ((by_p, (step, 0 * step)), (by_q, (0 * step, step))):
                up, down = (
                    tree_losses(network, network.closed, network.p_w + s * change[0], network.q_var + s * change[1])
                    for s in (1, -1)
                )
                assert gradient[bus] == pytest.approx((up - down)[0, 0] / 1000.0, abs=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_gain_and_sigma_equal_monte_carlo(baran33: FeederNetwork, correlation) -> None:
    """Optimum against greedy at 10 % load error: the published study gives 0.84 +- 1.57 % and P = 0.70."""
    network = baran33.with_closed(greedy_tree(baran33))
    best = search(baran33).closed
    sigma = sigmas(network, 0.1)
    covariance = np.outer(sigma, sigma) * (correlation + (1 - correlation) * np.eye(len(sigma)))
    gain = expected_gain(network, best, covariance)
    p, q = draw_powers(network, covariance, DRAWS, np.random.default_rng(7))
    losses = tree_losses(network, [network.closed, best], p, q)
    drawn = losses[0] - losses[1]
    assert gain.sigma_w == pytest.approx(drawn.std(), rel=0.06)
    assert gain.gain_w == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(DRAWS) + 0.1 * gain.sigma_w)
    assert gain.probability == pytest.approx((drawn > 0).mean(), abs=0.04)
    assert gain.quantile_w(0.9) == pytest.approx(np.quantile(drawn, 0.1), abs=0.1 * gain.sigma_w)


def test_without_uncertainty_the_sign_decides(baran33: FeederNetwork) -> None:
    best = search(baran33).closed
    gain = expected_gain(baran33, best, np.zeros(66))
    assert (gain.sigma_w, gain.probability) == (0.0, 1.0)
    assert expected_gain(baran33.with_closed(best), baran33.closed, np.zeros(66)).probability == 0.0
    assert gain.energy_kwh(24.0)[0] == pytest.approx(24 * 63.126, rel=1e-4)


def test_risk_of_breaking_a_limit(baran33: FeederNetwork) -> None:
    best = search(baran33).closed
    risk = limit_risk(
        baran33, best, sigmas(baran33, 0.1), Constraints(v_min_pu=0.92), rng=np.random.default_rng(1), draws=200
    )
    assert risk.current == 1.0
    assert risk.proposed == 0.0


@pytest.mark.parametrize("wrong", [np.zeros(5), np.full(66, np.nan), -np.eye(66), np.triu(np.ones((66, 66)))])
def test_a_wrong_covariance_is_named(baran33: FeederNetwork, wrong) -> None:
    with pytest.raises(InputError, match="covariance"):
        expected_gain(baran33, baran33.closed, wrong)


@pytest.mark.parametrize(
    ("criterion", "reason"),
    [
        (Criterion(), ""),
        (Criterion(percent=40.0), "not above"),
        (Criterion(energy_kwh=1e4), "kWh"),
        (Criterion(probability=0.99), ""),
        (Criterion(money=1.0, price_per_kwh=0.1, operation_cost=10.0), "profit"),
        (Criterion(money=1.0, price_per_kwh=0.1, operation_cost=0.1), ""),
    ],
)
def test_criteria(baran33: FeederNetwork, criterion, reason) -> None:
    best = search(baran33).closed
    gain = expected_gain(baran33, best, sigmas(baran33, 0.1))
    text = refusal(criterion, gain, operations=8)
    assert reason in text
    assert bool(text) == bool(reason)
