"""6x6 block operations on a work array of lanes: the vocabulary that the message kernels are written in.

Every block is 36 items, row by row, from a place (an item number) in the work array `w`; vectors are 6 items. `out`
must not overlap an input unless the docstring allows it. Constants (impedances) are ordinary 6x6 arrays.
"""

from __future__ import annotations

from flexmeter.estimation import rows
from flexmeter.powerflow.lanes import (
    FloatArray,
    WorkArray,
    inlined,
    load,
    routine,
    routine_with,
    square_root,
    store,
    where_positive,
)

N = 6
BLOCK = N * N
Row = tuple[float, float, float, float, float, float]
RELATIVE_ZERO = 1e-13
"""A pivot below this part of its diagonal counts as zero: rounding of a singular covariance."""


@inlined
def clear(w: WorkArray, out: int, size: int) -> None:
    """Set items to zero."""
    for k in range(size):
        store(w, out + k, 0.0)


@inlined
def copy(w: WorkArray, out: int, source: int, size: int) -> None:
    """Copy items."""
    for k in range(size):
        store(w, out + k, load(w, source + k))


@inlined
def add(w: WorkArray, out: int, source: int, size: int) -> None:
    """out += source, item by item."""
    for k in range(size):
        store(w, out + k, load(w, out + k) + load(w, source + k))


@inlined
def dot_row(w: WorkArray, row: Row, at: int, step: int) -> float:
    """Return the product of a row in registers with six items `step` apart."""
    return dot_rows(row, row_of(w, at, step))


@inlined
def dot_rows(row: Row, other: Row) -> float:
    """Return the product of two rows in registers."""
    one = row[0] * other[0] + row[1] * other[1] + row[2] * other[2]
    two = row[3] * other[3] + row[4] * other[4] + row[5] * other[5]
    return one + two


@inlined
def row_of(w: WorkArray, at: int, step: int) -> Row:
    """Load six items `step` apart."""
    return (
        load(w, at),
        load(w, at + step),
        load(w, at + 2 * step),
        load(w, at + 3 * step),
        load(w, at + 4 * step),
        load(w, at + 5 * step),
    )


@inlined
def multiply_strided(w: WorkArray, out: int, left: int, row: int, inner: int, right: int, column: int) -> None:
    """out = left @ right for blocks whose rows, inner items and columns lie some strides apart.

    Two rows at a time: each item of the right block is loaded for two products, which is what loads can keep up with.
    """
    for i in range(0, N, 2):
        one, two = row_of(w, left + row * i, inner), row_of(w, left + row * (i + 1), inner)
        for j in range(N):
            other = row_of(w, right + column * j, N + 1 - column)
            store(w, out + N * i + j, dot_rows(one, other))
            store(w, out + N * i + N + j, dot_rows(two, other))


@routine_with(one=rows.multiply)
def multiply(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left @ right."""
    multiply_strided(w, out, left, N, 1, right, 1)


@routine_with(one=rows.multiply_transposed)
def multiply_transposed(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left @ right.T."""
    multiply_strided(w, out, left, N, 1, right, N)


@routine_with(one=rows.transposed_multiply)
def transposed_multiply(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left.T @ right."""
    multiply_strided(w, out, left, 1, N, right, 1)


@routine_with(one=rows.multiply)
def multiply_lower(w: WorkArray, out: int, left: int, lower: int) -> None:
    """out = left @ lower, a lower triangular block."""
    for i in range(N):
        for j in range(N):
            total = load(w, left + N * i + j) * load(w, lower + (N + 1) * j)
            for k in range(j + 1, N):
                total = total + load(w, left + N * i + k) * load(w, lower + N * k + j)
            store(w, out + N * i + j, total)


@routine_with(one=rows.multiply_transposed)
def symmetric_multiply_transposed(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left @ right.T, known to be symmetric."""
    for i in range(N):
        row = row_of(w, left + N * i, 1)
        for j in range(i + 1):
            value = dot_row(w, row, right + N * j, 1)
            store(w, out + N * i + j, value)
            store(w, out + N * j + i, value)


@routine_with(one=rows.transposed_multiply)
def symmetric_transposed_multiply(w: WorkArray, out: int, left: int, right: int) -> None:
    """out = left.T @ right, known to be symmetric."""
    for i in range(N):
        row = row_of(w, left + i, N)
        for j in range(i + 1):
            value = dot_row(w, row, right + j, N)
            store(w, out + N * i + j, value)
            store(w, out + N * j + i, value)


@routine_with(one=rows.multiply_constant)
def multiply_constant(w: WorkArray, out: int, left: int, constant: FloatArray) -> None:
    """out = left @ constant; out may be left."""
    for i in range(N):
        x0, x1, x2, x3, x4, x5 = row_of(w, left + N * i, 1)
        for j in range(N):
            one = x0 * constant[0, j] + x1 * constant[1, j] + x2 * constant[2, j]
            two = x3 * constant[3, j] + x4 * constant[4, j] + x5 * constant[5, j]
            store(w, out + N * i + j, one + two)


@routine_with(one=rows.constant_multiply)
def constant_multiply(w: WorkArray, out: int, constant: FloatArray, right: int) -> None:
    """out = constant @ right."""
    for i in range(N):
        c = constant[i]
        for j in range(N):
            at = right + j
            one = load(w, at) * c[0] + load(w, at + N) * c[1] + load(w, at + 2 * N) * c[2]
            two = load(w, at + 3 * N) * c[3] + load(w, at + 4 * N) * c[4] + load(w, at + 5 * N) * c[5]
            store(w, out + N * i + j, one + two)


@routine_with(one=rows.transposed_constant_multiply)
def transposed_constant_multiply(w: WorkArray, out: int, constant: FloatArray, right: int) -> None:
    """out = constant.T @ right."""
    for i in range(N):
        c0, c1, c2 = constant[0, i], constant[1, i], constant[2, i]
        c3, c4, c5 = constant[3, i], constant[4, i], constant[5, i]
        for j in range(N):
            at = right + j
            one = load(w, at) * c0 + load(w, at + N) * c1 + load(w, at + 2 * N) * c2
            two = load(w, at + 3 * N) * c3 + load(w, at + 4 * N) * c4 + load(w, at + 5 * N) * c5
            store(w, out + N * i + j, one + two)


@routine
def identity_minus(w: WorkArray, block: int) -> None:
    """block = I - block."""
    for k in range(BLOCK):
        store(w, block + k, (1.0 if k % (N + 1) == 0 else 0.0) - load(w, block + k))


@inlined
def subtract(w: WorkArray, out: int, source: int, size: int) -> None:
    """out -= source, item by item."""
    for k in range(size):
        store(w, out + k, load(w, out + k) - load(w, source + k))


@inlined
def add_identity(w: WorkArray, block: int) -> None:
    """block += I."""
    for i in range(N):
        store(w, block + (N + 1) * i, load(w, block + (N + 1) * i) + 1.0)


@routine_with(one=rows.invert)
def invert(w: WorkArray, block: int) -> None:
    """Invert in place by Gauss-Jordan without row exchange: for I + A Z, whose pivots are near 1."""
    for k in range(N):
        pivot = 1.0 / load(w, block + (N + 1) * k)
        store(w, block + (N + 1) * k, 1.0)
        for j in range(N):
            store(w, block + N * k + j, load(w, block + N * k + j) * pivot)
        row = row_of(w, block + N * k, 1)
        for i in range(N):
            if i != k:
                factor = load(w, block + N * i + k)
                store(w, block + N * i + k, 0.0)
                for j in range(N):
                    store(w, block + N * i + j, load(w, block + N * i + j) - factor * row[j])


@routine_with(one=rows.cholesky)
def cholesky(w: WorkArray, out: int, symmetric: int) -> None:
    """out = lower C with C C.T = symmetric (semidefinite: zero pivots are skipped); out may be symmetric."""
    for j in range(N):
        diagonal = load(w, symmetric + (N + 1) * j)
        left = diagonal
        for k in range(j):
            c = load(w, out + N * j + k)
            left = left - c * c
        positive = left - diagonal * RELATIVE_ZERO
        left = where_positive(positive, left, 1.0)
        root = square_root(left)
        inverse = where_positive(positive, root * (1.0 / left), 0.0)  # no division waits for the root
        for i in range(j + 1, N):
            value = load(w, symmetric + N * i + j)
            for k in range(j):
                value = value - load(w, out + N * i + k) * load(w, out + N * j + k)
            store(w, out + N * i + j, value * inverse)
        store(w, out + (N + 1) * j, where_positive(positive, root, 0.0))
        for i in range(j):
            store(w, out + N * i + j, 0.0)


@routine_with(one=rows.divide_by_lower_transposed)
def divide_by_lower_transposed(w: WorkArray, out: int, left: int, lower: int) -> None:
    """out = left @ inverse(lower).T, lower regular; out may be left."""
    for j in range(N):
        inverse = 1.0 / load(w, lower + (N + 1) * j)
        for i in range(N):
            value = load(w, left + N * i + j)
            for k in range(j):
                value = value - load(w, out + N * i + k) * load(w, lower + N * j + k)
            store(w, out + N * i + j, value * inverse)


@routine_with(one=rows.apply)
def apply(w: WorkArray, out: int, block: int, vector: int) -> None:
    """out = block @ vector."""
    row = row_of(w, vector, 1)
    for i in range(N):
        store(w, out + i, dot_row(w, row, block + N * i, 1))


@routine_with(one=rows.apply_transposed)
def apply_transposed(w: WorkArray, out: int, block: int, vector: int) -> None:
    """out = block.T @ vector."""
    row = row_of(w, vector, 1)
    for i in range(N):
        store(w, out + i, dot_row(w, row, block + i, N))


@routine_with(one=rows.apply_constant)
def apply_constant(w: WorkArray, out: int, constant: FloatArray, vector: int) -> None:
    """out = constant @ vector; out may be vector."""
    x0, x1, x2, x3, x4, x5 = row_of(w, vector, 1)
    for i in range(N):
        one = x0 * constant[i, 0] + x1 * constant[i, 1] + x2 * constant[i, 2]
        two = x3 * constant[i, 3] + x4 * constant[i, 4] + x5 * constant[i, 5]
        store(w, out + i, one + two)


@routine_with(one=rows.apply_transposed_constant)
def apply_transposed_constant(w: WorkArray, out: int, constant: FloatArray, vector: int) -> None:
    """out = constant.T @ vector; out may be vector."""
    x0, x1, x2, x3, x4, x5 = row_of(w, vector, 1)
    for i in range(N):
        one = x0 * constant[0, i] + x1 * constant[1, i] + x2 * constant[2, i]
        two = x3 * constant[3, i] + x4 * constant[4, i] + x5 * constant[5, i]
        store(w, out + i, one + two)


@inlined
def dot(w: WorkArray, one: int, other: int) -> float:
    """Return the product of two vectors."""
    return dot_row(w, row_of(w, one, 1), other, 1)
