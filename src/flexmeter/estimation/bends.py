"""What the gradients of P, Q and |J| of an edge do not show of their variance: products of deviations."""

from __future__ import annotations

from flexmeter.estimation.covariance import COV_JJ, COV_JV, COV_VV, cell
from flexmeter.estimation.flow import CURRENT, REACTIVE
from flexmeter.estimation.leaf import Square
from flexmeter.estimation.model import EstimatorModel, Places
from flexmeter.estimation.places import BUS, BUS_J
from flexmeter.powerflow.compiling import inlined
from flexmeter.powerflow.lanes import WorkArray, load, where_positive


@inlined
def current_block(w: WorkArray, at: Places, k: int, phase: int) -> Square:
    """Return the covariance of the current of a phase of the edge into bus k."""
    return cell(w, at.head_joint + 36 if k == 0 else at.bus + BUS * k + COV_JJ, phase, phase)


@inlined
def current_variances(w: WorkArray, place: int, c: Square) -> tuple[float, float, float]:
    """Return the variances of a current along its direction and across, and its square."""
    re, im = load(w, place), load(w, place + 1)
    square, mixed = re * re + im * im, (c[1] + c[2]) * re * im
    return (
        (c[0] * re * re + mixed + c[3] * im * im) / square,
        (c[0] * im * im - mixed + c[3] * re * re) / square,
        square,
    )


@inlined
def current_with_voltage(w: WorkArray, at: Places, m: EstimatorModel, k: int, phase: int) -> Square:
    """Return the covariance of the current of a phase of the edge into bus k with its voltage there."""
    if k == 0:
        return cell(w, at.head_joint, phase, phase)
    bus = at.bus + BUS * k
    c = cell(w, bus + COV_JV, phase, phase)  # V = T V_parent - Z J
    for i in range(6):
        one, two = load(w, bus + COV_JJ + 12 * phase + i), load(w, bus + COV_JJ + 12 * phase + 6 + i)
        x, y = m.impedance[k, 2 * phase, i], m.impedance[k, 2 * phase + 1, i]
        c = (c[0] - one * x, c[1] - one * y, c[2] - two * x, c[3] - two * y)
    return c


@inlined
def product_variance(v: Square, j: Square, jv: Square) -> float:
    """Return the mean square of v . j for deviations v and j with these covariances: Gaussian fourth moments."""
    mean = jv[0] + jv[3]
    both = v[0] * j[0] + v[1] * j[1] + v[2] * j[2] + v[3] * j[3]
    return mean * mean + both + jv[0] * jv[0] + 2.0 * jv[1] * jv[2] + jv[3] * jv[3]


@inlined
def bent_variance(w: WorkArray, at: Places, m: EstimatorModel, k: int, flow: int) -> float:
    """Return the mean square of what the gradient of P, Q or |J| of an edge does not show."""
    bus, phase = at.bus + BUS * k, m.flow_phase[flow]
    j = current_block(w, at, k, phase)
    if m.flow_kind[flow] == CURRENT:
        _, across, square = current_variances(w, bus + BUS_J + 2 * phase, j)
        bent = 0.75 * across / square  # |J + across| = |J| + across^2 / (2 |J|), but at most |J| + |across|
        return across * where_positive(1.0 - bent, bent, 1.0)
    jv, v = current_with_voltage(w, at, m, k, phase), cell(w, bus + COV_VV, phase, phase)
    if m.flow_kind[flow] == REACTIVE:
        j, jv = (j[3], -j[2], -j[1], j[0]), (-jv[2], -jv[3], jv[0], jv[1])
    return product_variance(v, j, jv)
