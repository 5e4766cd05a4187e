"""Aggregates: what an area below reports at its head bus, as one three-phase message (paper sections 4.2, 4.3).

The report is z9 = (|V| of a, b, c, then P, then Q) with joint covariance S9. Split into |V| (information on the bus
voltage) and S | |V| (a load whose power leans on the voltage):

    W = S_vv^-1        K = S_sv W        S_c = S_ss - K S_vs        s = s_m + K (|V| - v_m) + noise(S_c)
    A = A_0 + D K H_v  b = D (s_m + K (|V| - v_m) - s)    R = D S_c D'    L = H_v' W H_v    eta = H_v' W (v_m - |V|)

with D the map from a change of power to one of current at constant voltage, A_0 that of voltage at constant power,
H_v = d|V|/dV. Powers are kept per phase (P_a, Q_a, P_b, ...). Missing magnitudes have zero rows in W and columns in
K; missing powers are widened to the forecast's variance before this.
"""

from __future__ import annotations

from flexmeter.estimation.blocks import BLOCK, add, apply, multiply, multiply_transposed
from flexmeter.estimation.leaf import powered_current, put_pair
from flexmeter.estimation.places import BUS_A, BUS_B, BUS_DV, BUS_ETA, BUS_L, BUS_LAMBDA, BUS_R, BUS_V
from flexmeter.powerflow.compiling import inlined, kernel, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, square_root, store, take

Z_V, Z_S, GAIN, COVARIANCE, INVERSE, WEIGHT = 0, 3, 9, 27, 63, 99
REPORT = 108
"""Rows of a report: v_m (3), s_m (6), K (6x3), S_c (6x6), S_c^-1 (6x6), W (3x3)."""
CURRENT, STEP, A, R, B, OFF_V, OFF_S, BASE = 108, 114, 120, 156, 192, 198, 201, 207
AGGREGATE = 213


@kernel
def condition_reports(
    value: FloatArray, covariance: FloatArray, forecast: FloatArray, work: FloatArray, out: FloatArray
) -> None:
    """Turn reports into the rows the kernel reads.

    value (n_aggregate, 9, n_scenario), covariance (n_aggregate, 9, 9, n_scenario), nan = missing; forecast
    (n_aggregate, 12) mean and sigma of P, Q per phase where missing; work (3, 9, 10); out (n_aggregate * REPORT,
    n_scenario).
    """
    cov, weight, left = work[0], work[1], work[2]
    for a in range(value.shape[0]):
        for s in range(value.shape[2]):
            row = a * REPORT
            for i in range(9):
                for j in range(9):
                    both = is_known(value, covariance, a, i, s) and is_known(value, covariance, a, j, s)
                    cov[i, j] = covariance[a, i, j, s] if both else 0.0
            for i in range(3):
                out[row + Z_V + i, s] = value[a, i, s] if is_known(value, covariance, a, i, s) else 0.0
            for i in range(6):
                z = value[a, 3 + i, s]
                if not is_known(value, covariance, a, 3 + i, s):
                    z = forecast[a, 4 * (i % 3) + 2 * (i // 3)]
                    cov[3 + i, 3 + i] = forecast[a, 4 * (i % 3) + 2 * (i // 3) + 1] ** 2
                out[row + Z_S + phase_order(i), s] = z
            for i in range(3):
                for j in range(3):
                    weight[i, j] = cov[i, j]
            invert_known(weight, 3)
            for i in range(6):
                for j in range(3):
                    gain = 0.0
                    for k in range(3):
                        gain += cov[3 + i, k] * weight[k, j]
                    out[row + GAIN + 3 * phase_order(i) + j, s] = gain
            for i in range(6):
                for j in range(6):
                    rest = cov[3 + i, 3 + j]
                    for k in range(3):
                        rest -= 0.5 * out[row + GAIN + 3 * phase_order(i) + k, s] * cov[3 + j, k]
                        rest -= 0.5 * out[row + GAIN + 3 * phase_order(j) + k, s] * cov[3 + i, k]
                    left[phase_order(i), phase_order(j)] = rest
            for i in range(6):
                for j in range(6):
                    out[row + COVARIANCE + 6 * i + j, s] = left[i, j]
            invert_known(left, 6)
            for i in range(6):
                for j in range(6):
                    out[row + INVERSE + 6 * i + j, s] = left[i, j]
            for i in range(3):
                for j in range(3):
                    out[row + WEIGHT + 3 * i + j, s] = weight[i, j]


@inlined
def is_known(value: FloatArray, covariance: FloatArray, a: int, i: int, s: int) -> bool:
    """Whether a reported quantity is there."""
    off = (value[a, i, s] - value[a, i, s]) + (covariance[a, i, i, s] - covariance[a, i, i, s])  # nan unless finite
    return bool(off == 0.0)


@inlined
def phase_order(i: int) -> int:
    """Return the place of P_a, P_b, P_c, Q_a, Q_b, Q_c in the order P_a, Q_a, P_b, ..."""
    return 2 * (i % 3) + i // 3


@routine
def invert_known(matrix: FloatArray, n: int) -> None:
    """Invert the first n rows and columns of a symmetric matrix where they are positive; the others become 0.

    Gauss-Jordan; column n keeps the original diagonal, to tell a pivot from rounding.
    """
    for k in range(n):
        matrix[k, 9] = matrix[k, k]
    for k in range(n):
        if matrix[k, k] > 1e-12 * matrix[k, 9]:
            pivot = 1.0 / matrix[k, k]
            for i in range(n):
                if i != k:
                    for j in range(n):
                        if j != k:
                            matrix[i, j] -= matrix[i, k] * matrix[k, j] * pivot
            for i in range(n):
                if i != k:
                    matrix[i, k] *= -pivot
                    matrix[k, i] *= pivot
            matrix[k, k] = pivot
        else:
            matrix[k, 9] = -1.0
    for i in range(n):
        for j in range(n):
            if matrix[i, 9] < 0.0 or matrix[j, 9] < 0.0:
                matrix[i, j] = 0.0


@inlined
def read_report(w: WorkArray, at: int, report: FloatArray, number: int, start: int, count: int) -> None:
    """Load an aggregate's rows."""
    for k in range(REPORT):
        store(w, at + k, take(w, report, REPORT * number + k, start, count))


@inlined
def misfit(w: WorkArray, at: int, v: int) -> None:
    """Write v_m - |V| and s_m + K (|V| - v_m) - s."""
    for q in range(3):
        re, im = load(w, v + 2 * q), load(w, v + 2 * q + 1)
        i_re, i_im = load(w, at + CURRENT + 2 * q), load(w, at + CURRENT + 2 * q + 1)
        store(w, at + OFF_V + q, load(w, at + Z_V + q) - square_root(re * re + im * im))
        store(w, at + OFF_S + 2 * q, load(w, at + Z_S + 2 * q) - (re * i_re + im * i_im))
        store(w, at + OFF_S + 2 * q + 1, load(w, at + Z_S + 2 * q + 1) - (im * i_re - re * i_im))
    for i in range(6):
        lean = load(w, at + OFF_S + i)
        for j in range(3):
            lean = lean - load(w, at + GAIN + 3 * i + j) * load(w, at + OFF_V + j)
        store(w, at + OFF_S + i, lean)


@routine
def aggregate_up(w: WorkArray, at: int, bus: int, scratch: int) -> None:
    """Work out the aggregate's message, keep A, R, b for the way down, add it to its bus."""
    v = bus + BUS_V
    misfit(w, at, v)
    to_current, half, unit = scratch, scratch + BLOCK, scratch + 2 * BLOCK
    for k in range(BLOCK):
        store(w, to_current + k, 0.0)
    for q in range(3):
        re, im = load(w, v + 2 * q), load(w, v + 2 * q + 1)
        inverse2 = 1.0 / (re * re + im * im)
        first = to_current + 14 * q
        store(w, first, re * inverse2)
        store(w, first + 1, im * inverse2)
        store(w, first + 6, im * inverse2)
        store(w, first + 7, -re * inverse2)
        size = square_root(inverse2)
        store(w, unit + 2 * q, re * size)
        store(w, unit + 2 * q + 1, im * size)
    multiply(w, half, to_current, at + COVARIANCE)
    multiply_transposed(w, at + R, half, to_current)
    for i in range(6):  # D K H_v
        for j in range(6):
            lean = load(w, at + GAIN + 3 * i + j // 2)
            store(w, half + 6 * i + j, lean * load(w, unit + j))
    multiply(w, at + A, to_current, half)
    for q in range(3):
        add_voltage_dependence(w, at + A + 14 * q, v + 2 * q, at + CURRENT + 2 * q)
    apply(w, at + B, to_current, at + OFF_S)
    for i in range(6):
        pull = 0.0
        for j in range(3):
            pull = pull + load(w, at + WEIGHT + 3 * (i // 2) + j) * load(w, at + OFF_V + j)
        store(w, bus + BUS_ETA + i, load(w, bus + BUS_ETA + i) + pull * load(w, unit + i))
        for j in range(6):
            weight = load(w, at + WEIGHT + 3 * (i // 2) + j // 2) * load(w, unit + i) * load(w, unit + j)
            store(w, bus + BUS_L + 6 * i + j, load(w, bus + BUS_L + 6 * i + j) + weight)
    add(w, bus + BUS_A, at + A, BLOCK)
    add(w, bus + BUS_R, at + R, BLOCK)
    add(w, bus + BUS_B, at + B, 6)


@inlined
def add_voltage_dependence(w: WorkArray, block: int, v: int, i: int) -> None:
    """Add dV -> -c conj(dV), c = I / conj(V), to a 2x2 part of a 6x6 block."""
    re, im, i_re, i_im = load(w, v), load(w, v + 1), load(w, i), load(w, i + 1)
    inverse2 = 1.0 / (re * re + im * im)
    c_re, c_im = (i_re * re - i_im * im) * inverse2, (i_re * im + i_im * re) * inverse2
    store(w, block, load(w, block) - c_re)
    store(w, block + 1, load(w, block + 1) - c_im)
    store(w, block + 6, load(w, block + 6) - c_im)
    store(w, block + 7, load(w, block + 7) + c_re)


@routine
def aggregate_down(w: WorkArray, at: int, bus: int, scratch: int) -> None:
    """Write the aggregate's step: dI = A dV + b + R lambda."""
    apply(w, at + STEP, at + A, bus + BUS_DV)
    apply(w, scratch, at + R, bus + BUS_LAMBDA)
    add(w, at + STEP, scratch, 6)
    add(w, at + STEP, at + B, 6)


@routine
def aggregate_objective(w: WorkArray, at: int, bus: int) -> float:
    """Return the aggregate's part of J."""
    misfit(w, at, bus + BUS_V)
    total = 0.0
    for i in range(3):
        for j in range(3):
            weight = load(w, at + WEIGHT + 3 * i + j)
            total = total + load(w, at + OFF_V + i) * weight * load(w, at + OFF_V + j)
    for i in range(6):
        for j in range(6):
            weight = load(w, at + INVERSE + 6 * i + j)
            total = total + load(w, at + OFF_S + i) * weight * load(w, at + OFF_S + j)
    return total


@inlined
def move_aggregate(w: WorkArray, at: int, bus: int, step: float, powered: bool) -> None:
    """Take the step, call before V moves; leave in STEP what the currents differ from linear ones: see `move_leaf`."""
    for q in range(3):
        i, di = at + CURRENT + 2 * q, at + STEP + 2 * q
        re, im = load(w, i) + step * load(w, di), load(w, i + 1) + step * load(w, di + 1)
        change = (0.0, 0.0)
        if powered:
            better = powered_current(w, bus + BUS_V + 2 * q, i, bus + BUS_DV + 2 * q, di, step)
            change = (better[0] - re, better[1] - im)
            re, im = better
        put_pair(w, i, (re, im))
        put_pair(w, di, change)


@inlined
def start_aggregate(w: WorkArray, at: int, bus: int) -> None:
    """Set the current to conj(S / V) of the reported power and add it to the bus's current."""
    for q in range(3):
        re, im = load(w, bus + BUS_V + 2 * q), load(w, bus + BUS_V + 2 * q + 1)
        p, r = load(w, at + Z_S + 2 * q), load(w, at + Z_S + 2 * q + 1)
        inverse2 = 1.0 / (re * re + im * im)
        store(w, at + CURRENT + 2 * q, (p * re + r * im) * inverse2)
        store(w, at + CURRENT + 2 * q + 1, (p * im - r * re) * inverse2)
