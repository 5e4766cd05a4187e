"""6x6 block operations on a work array of one scenario: a row of six in a register, where `blocks` has four scenarios.

The same functions as in `blocks`, which says what they do. A product takes 36 multiply-adds of a row.
"""

from __future__ import annotations

from flexmeter.estimation.six import load_six, row_of_six, spread, store_six, transposed
from flexmeter.powerflow.compiling import inlined, routine
from flexmeter.powerflow.lanes import FloatArray, WorkArray, lane, load, square_root, where_positive, with_lane

N = 6
Rows = tuple[float, float, float, float, float, float]
RELATIVE_ZERO = 1e-13
"""A pivot below this part of its diagonal counts as zero: rounding of a singular covariance."""


@inlined
def rows_of(w: WorkArray, block: int) -> Rows:
    """Load a block."""
    return (
        load_six(w, block),
        load_six(w, block + N),
        load_six(w, block + 2 * N),
        load_six(w, block + 3 * N),
        load_six(w, block + 4 * N),
        load_six(w, block + 5 * N),
    )


@inlined
def rows_of_constant(c: FloatArray) -> Rows:
    """Load a constant block."""
    return (
        row_of_six(c, 0), row_of_six(c, 1), row_of_six(c, 2), row_of_six(c, 3), row_of_six(c, 4), row_of_six(c, 5)
    )  # fmt: skip


@inlined
def put_rows(w: WorkArray, block: int, rows: Rows) -> None:
    """Store a block."""
    for k, row in enumerate(rows):
        store_six(w, block + N * k, row)


@inlined
def combined(w: WorkArray, weight: int, step: int, rows: Rows) -> float:
    """Return the sum of rows, weighted by items `step` apart."""
    one = rows[0] * load(w, weight) + rows[1] * load(w, weight + step) + rows[2] * load(w, weight + 2 * step)
    two = rows[3] * load(w, weight + 3 * step) + rows[4] * load(w, weight + 4 * step)
    return one + (two + rows[5] * load(w, weight + 5 * step))


@routine
def multiply(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left @ right."""
    rows = rows_of(w, right)
    for i in range(N):
        store_six(w, out + N * i, combined(w, left + N * i, 1, rows))


@routine
def multiply_transposed(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left @ right.T."""
    rows = transposed(rows_of(w, right))
    for i in range(N):
        store_six(w, out + N * i, combined(w, left + N * i, 1, rows))


@routine
def transposed_multiply(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left.T @ right."""
    rows = rows_of(w, right)
    for i in range(N):
        store_six(w, out + N * i, combined(w, left + i, N, rows))


@routine
def multiply_constant(w: WorkArray, out: int, left: int, constant: FloatArray) -> None:
    """out = left @ constant; out may be left."""
    rows = rows_of_constant(constant)
    for i in range(N):
        store_six(w, out + N * i, combined(w, left + N * i, 1, rows))


@routine
def constant_multiply(w: WorkArray, out: int, constant: FloatArray, right: int) -> None:
    """out = constant @ right."""
    rows = rows_of(w, right)
    for i in range(N):
        store_six(w, out + N * i, weighed(constant[i], rows))


@inlined
def weighed(weight: FloatArray, rows: Rows) -> float:
    """Return the sum of rows, weighted by six numbers."""
    one = rows[0] * float(weight[0]) + rows[1] * float(weight[1]) + rows[2] * float(weight[2])
    two = rows[3] * float(weight[3]) + rows[4] * float(weight[4]) + rows[5] * float(weight[5])
    return one + two


@routine
def invert(w: WorkArray, block: int) -> None:
    """Invert in place by Gauss-Jordan with 2x2 pivots, without exchange: for I + A Z, whose pivots are near I."""
    for k in range(0, N, 2):
        x, y = load_six(w, block + N * k), load_six(w, block + N * (k + 1))
        a, b, c, d = lane(x, k), lane(x, k + 1), lane(y, k), lane(y, k + 1)
        scale = 1.0 / (a * d - b * c)
        x, y = with_pair(x, k, 1.0, 0.0), with_pair(y, k, 0.0, 1.0)
        one, two = x * (d * scale) - y * (b * scale), y * (a * scale) - x * (c * scale)
        for i in range(N):
            if i // 2 != k // 2:
                row = load_six(w, block + N * i)
                rest = with_pair(row, k, 0.0, 0.0)
                store_six(w, block + N * i, rest - (spread(row, k) * one + spread(row, k + 1) * two))
        store_six(w, block + N * k, one)
        store_six(w, block + N * (k + 1), two)


@inlined
def with_pair(row: float, k: int, one: float, two: float) -> float:
    """Return a row with two items replaced."""
    return with_lane(with_lane(row, k, one), k + 1, two)


@inlined
def pivot(left: float, diagonal: float) -> tuple[float, float]:
    """Return inverse and root of a pivot, zero where it is only the rounding of its diagonal."""
    positive = left - diagonal * RELATIVE_ZERO
    return where_positive(positive, 1.0 / left, 0.0), where_positive(positive, square_root(left), 0.0)


@routine
def cholesky(w: WorkArray, out: int, symmetric: int) -> None:
    """out = lower C with C C.T = symmetric (semidefinite: zero pivots are skipped); out may be symmetric.

    Eliminates with unscaled rows, so that no next pivot waits for a square root.
    """
    r0, r1, r2, r3, r4, r5 = rows_of(w, symmetric)
    d1, d2, d3, d4, d5 = lane(r1, 1), lane(r2, 2), lane(r3, 3), lane(r4, 4), lane(r5, 5)
    s0, u0 = eliminator(r0, 0, lane(r0, 0))
    r1, r2, r3, r4, r5 = (
        less(r1, r0, s0, 1),
        less(r2, r0, s0, 2),
        less(r3, r0, s0, 3),
        less(r4, r0, s0, 4),
        less(r5, r0, s0, 5),
    )
    s1, u1 = eliminator(r1, 1, d1)
    r2, r3, r4, r5 = less(r2, r1, s1, 2), less(r3, r1, s1, 3), less(r4, r1, s1, 4), less(r5, r1, s1, 5)
    s2, u2 = eliminator(r2, 2, d2)
    r3, r4, r5 = less(r3, r2, s2, 3), less(r4, r2, s2, 4), less(r5, r2, s2, 5)
    s3, u3 = eliminator(r3, 3, d3)
    r4, r5 = less(r4, r3, s3, 4), less(r5, r3, s3, 5)
    s4, u4 = eliminator(r4, 4, d4)
    _, u5 = eliminator(less(r5, r4, s4, 5), 5, d5)
    put_rows(w, out, transposed((u0, u1, u2, u3, u4, u5)))


@inlined
def less(row: float, above: float, scaled: float, k: int) -> float:
    """Return a row after elimination of one above, which is given and given over its pivot."""
    return row - spread(above, k) * scaled


@inlined
def eliminator(row: float, k: int, diagonal: float) -> tuple[float, float]:
    """Return a row over its pivot, and over the root of it with zeros before it; zeros for a pivot that is zero."""
    inverse, root = pivot(lane(row, k), diagonal)
    scaled = row * inverse
    upper = scaled * root
    for before in range(k):
        upper = with_lane(upper, before, 0.0)
    return scaled, upper


@inlined
def inverse_diagonal(w: WorkArray, lower: int) -> Rows:
    """Return one over each item of a diagonal."""
    return (
        1.0 / load(w, lower),
        1.0 / load(w, lower + 7),
        1.0 / load(w, lower + 14),
        1.0 / load(w, lower + 21),
        1.0 / load(w, lower + 28),
        1.0 / load(w, lower + 35),
    )


@inlined
def substitute(w: WorkArray, lower: int, inverse: Rows, left: Rows) -> Rows:
    """Return left @ inverse(lower).T of one row in six values, or of all rows with a column in each value."""
    x0 = left[0] * inverse[0]
    x1 = (left[1] - x0 * load(w, lower + 6)) * inverse[1]
    x2 = (left[2] - x0 * load(w, lower + 12) - x1 * load(w, lower + 13)) * inverse[2]
    x3 = left[3] - x0 * load(w, lower + 18) - x1 * load(w, lower + 19) - x2 * load(w, lower + 20)
    x3 = x3 * inverse[3]
    x4 = left[4] - x0 * load(w, lower + 24) - x1 * load(w, lower + 25) - x2 * load(w, lower + 26)
    x4 = (x4 - x3 * load(w, lower + 27)) * inverse[4]
    x5 = left[5] - x0 * load(w, lower + 30) - x1 * load(w, lower + 31) - x2 * load(w, lower + 32)
    x5 = (x5 - x3 * load(w, lower + 33) - x4 * load(w, lower + 34)) * inverse[5]
    return x0, x1, x2, x3, x4, x5


@routine
def divide_by_lower_transposed(w: WorkArray, out: int, left: int, lower: int) -> None:
    """out = left @ inverse(lower).T, lower regular; out may be left."""
    columns = transposed(rows_of(w, left))
    put_rows(w, out, transposed(substitute(w, lower, inverse_diagonal(w, lower), columns)))


@routine
def apply(w: WorkArray, out: int, block: int, vector: int) -> None:
    """out = block @ vector."""
    store_six(w, out, combined(w, vector, 1, transposed(rows_of(w, block))))


@routine
def apply_transposed(w: WorkArray, out: int, block: int, vector: int) -> None:
    """out = block.T @ vector."""
    store_six(w, out, combined(w, vector, 1, rows_of(w, block)))


@routine
def apply_constant(w: WorkArray, out: int, constant: FloatArray, vector: int) -> None:
    """out = constant @ vector; out may be vector."""
    store_six(w, out, combined(w, vector, 1, transposed(rows_of_constant(constant))))


@routine
def apply_transposed_constant(w: WorkArray, out: int, constant: FloatArray, vector: int) -> None:
    """out = constant.T @ vector; out may be vector."""
    store_six(w, out, combined(w, vector, 1, rows_of_constant(constant)))
