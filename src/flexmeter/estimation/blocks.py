"""6x6 block operations on a work array of lanes: the vocabulary that the message kernels are written in.

Every block is 36 items, row by row, from a place (an item number) in the work array `w`; vectors are 6 items. `out`
must not overlap an input unless the docstring allows it. Constants (impedances) are ordinary 6x6 arrays.
"""

from __future__ import annotations

from flexmeter.estimation import rows
from flexmeter.powerflow.compiling import inlined, routine, routine_with
from flexmeter.powerflow.lanes import FloatArray, WorkArray, load, store

N = 6
BLOCK = N * N
Row = tuple[float, float, float, float, float, float]


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


@inlined
def constant_row(constant: FloatArray, i: int) -> Row:
    """Return a row of a constant."""
    return constant[i, 0], constant[i, 1], constant[i, 2], constant[i, 3], constant[i, 4], constant[i, 5]


@inlined
def constant_column(constant: FloatArray, j: int) -> Row:
    """Return a column of a constant."""
    return constant[0, j], constant[1, j], constant[2, j], constant[3, j], constant[4, j], constant[5, j]


@routine_with(one=rows.multiply_constant)
def multiply_constant(w: WorkArray, out: int, left: int, constant: FloatArray) -> None:
    """out = left @ constant; out may be left."""
    for i in range(0, N, 2):
        one, two = row_of(w, left + N * i, 1), row_of(w, left + N * (i + 1), 1)
        for j in range(N):
            column = constant_column(constant, j)
            store(w, out + N * i + j, dot_rows(one, column))
            store(w, out + N * i + N + j, dot_rows(two, column))


@routine_with(one=rows.constant_multiply)
def constant_multiply(w: WorkArray, out: int, constant: FloatArray, right: int) -> None:
    """out = constant @ right."""
    for i in range(0, N, 2):
        one, two = constant_row(constant, i), constant_row(constant, i + 1)
        for j in range(N):
            column = row_of(w, right + j, N)
            store(w, out + N * i + j, dot_rows(column, one))
            store(w, out + N * i + N + j, dot_rows(column, two))


@routine
def transposed_constant_multiply(w: WorkArray, out: int, constant: FloatArray, right: int) -> None:
    """out = constant.T @ right."""
    constant_multiply(w, out, constant.T, right)


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
    """Invert in place by Gauss-Jordan with 2x2 pivots, without exchange: for I + A Z, whose pivots are near I."""
    for k in range(0, N, 2):
        one, two = block + N * k, block + N * (k + 1)
        a, b, c, d = load(w, one + k), load(w, one + k + 1), load(w, two + k), load(w, two + k + 1)
        scale = 1.0 / (a * d - b * c)
        a, b, c, d = d * scale, -b * scale, -c * scale, a * scale
        put_unit(w, block, k)
        for j in range(N):
            x, y = load(w, one + j), load(w, two + j)
            store(w, one + j, a * x + b * y)
            store(w, two + j, c * x + d * y)
        x_row, y_row = row_of(w, one, 1), row_of(w, two, 1)
        for i in range(N):
            if i // 2 != k // 2:
                row = block + N * i
                x, y = load(w, row + k), load(w, row + k + 1)
                store(w, row + k, 0.0)
                store(w, row + k + 1, 0.0)
                for j in range(N):
                    store(w, row + j, load(w, row + j) - (x * x_row[j] + y * y_row[j]))


@inlined
def put_unit(w: WorkArray, block: int, k: int) -> None:
    """Put a 2x2 unit matrix on the diagonal."""
    at = block + (N + 1) * k
    store(w, at, 1.0)
    store(w, at + 1, 0.0)
    store(w, at + N, 0.0)
    store(w, at + N + 1, 1.0)


@routine_with(one=rows.cholesky)
def cholesky(w: WorkArray, out: int, symmetric: int) -> None:
    """out = lower C with C C.T = symmetric (semidefinite: zero pivots are skipped); out may be symmetric.

    Eliminates with unscaled columns, so that no next pivot waits for a square root.
    """
    diagonal = row_of(w, symmetric, N + 1)
    for i in range(N):
        for k in range(i + 1):
            store(w, out + N * i + k, load(w, symmetric + N * i + k))
    for j in range(N):
        column = row_of(w, out + j, N)
        inverse, root = rows.pivot(column[j], diagonal[j])
        for i in range(j + 1, N):
            scaled = column[i] * inverse
            for k in range(j + 1, i + 1):
                store(w, out + N * i + k, load(w, out + N * i + k) - scaled * column[k])
            store(w, out + N * i + j, scaled * root)
        store(w, out + (N + 1) * j, root)
        for i in range(j):
            store(w, out + N * i + j, 0.0)


@routine_with(one=rows.divide_by_lower_transposed)
def divide_by_lower_transposed(w: WorkArray, out: int, left: int, lower: int) -> None:
    """out = left @ inverse(lower).T, lower regular; out may be left."""
    inverse = rows.inverse_diagonal(w, lower)
    for i in range(N):
        x0, x1, x2, x3, x4, x5 = rows.substitute(w, lower, inverse, row_of(w, left + N * i, 1))
        for j, value in enumerate((x0, x1, x2, x3, x4, x5)):
            store(w, out + N * i + j, value)


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
