"""Lanes: a few scenarios side by side in one vector register, as a number type for kernels.

A kernel is written as if it worked on one scenario; `load` takes `LANES` neighbouring floats out of a work array,
the operators work on all of them in one machine instruction, `store` puts them back. Vector instructions are thereby
certain: nothing is left to the compiler's loop vectoriser (see docs/decisions/010-lanes.md). On a work array of plain
numbers the same functions do work on one scenario; `load_six` and its kin then take a row of a block into a register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

from flexmeter.powerflow.compiling import inlined

LANES = 4
FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]
WorkArray = NDArray[Any]
"""Of `LANE`: an item holds several scenarios. Of ordinary numbers: an item holds one."""
LANE = np.dtype([("lane", np.float64, (LANES,))])


def ready(array: ArrayLike) -> FloatArray:
    """Return an array as kernels are compiled for: float64, C order, writable (a read-only one is another type)."""
    if type(array) is np.ndarray and array.dtype == np.float64 and array.flags.carray:
        return array  # a tenth of the time of looking closely
    return np.require(array, np.float64, ["C", "W"])


def work_array(items: int, lanes: int = LANES) -> WorkArray:
    """Return an array to work in, of `LANES` scenarios or of one; whatever lies in it.

    It begins with a cache line: the estimation is a sixth faster than across lines.
    """
    array = np.empty(items * lanes + 7)
    first = -array.__array_interface__["data"][0] % 64 // 8
    array = array[first : first + items * lanes]
    return array if lanes == 1 else array.view(LANE)


def block_count(n_scenario: int, lanes: int = LANES) -> int:
    """Return how many blocks of some lanes hold `n_scenario`."""
    return -(-n_scenario // lanes)


if TYPE_CHECKING:

    def load(array: WorkArray, item: int) -> float:
        """Return one item of a work array."""

    def store(array: WorkArray, item: int, value: float) -> None:
        """Write one item."""

    def splat(array: WorkArray, value: float) -> float:
        """Return a number as an item of the array: the same in every lane."""

    def square_root(value: float) -> float:
        """Return the square root of each lane."""

    def where_positive(condition: float, yes: float, no: float) -> float:
        """Return in each lane `yes` where the condition is > 0, else `no` (also where it is nan)."""

    def zeros() -> float:
        """Return lanes of zeros."""

    def largest(value: float) -> float:
        """Return the largest lane as an ordinary number."""

    def width(value: float | WorkArray) -> int:
        """Return how many lanes a value or a work array has."""

    def lane(value: float, index: int) -> float:
        """Return one lane as an ordinary number."""

    def with_lane(value: float, index: int, number: float) -> float:
        """Return the value with one lane replaced."""

    def load_row(work: WorkArray, array: FloatArray, row: int, column: int) -> float:
        """Return the lanes from a column on of a row of a 2-d array."""

    def load_complex_row(array: ComplexArray, row: int, column: int) -> tuple[float, float]:
        """Return real and imaginary parts from a column on of a row of a 2-d array."""

    def store_row(array: FloatArray, row: int, column: int, value: float) -> None:
        """Write the lanes from a column on of a row of a 2-d array."""

    def store_complex_row(array: ComplexArray, row: int, column: int, real: float, imaginary: float) -> None:
        """Write complex numbers from a column on of a row of a 2-d array."""

else:
    from flexmeter.powerflow.vectors import (
        Vector,
        converted,
        data_of,
        machine_type,
        read,
        row_pointer,
        shuffled,
        widest,
    )

    lanes, _INDEX = Vector(LANES), ir.IntType(32)

    def _item(array):
        """Return the type of an item of a work array."""
        return lanes if isinstance(array.dtype, types.Record) else types.float64

    @intrinsic
    def load(typing_context, array, item):
        def code(context, builder, signature, arguments):
            data = data_of(context, builder, signature.args[0], arguments[0])
            return read(builder, data, arguments[1], signature.return_type)

        return _item(array)(array, types.intp), code

    @intrinsic
    def store(typing_context, array, item, value):
        kind = _item(array)

        def code(context, builder, signature, arguments):
            data = data_of(context, builder, signature.args[0], arguments[0])
            target = builder.gep(builder.bitcast(data, machine_type(kind).as_pointer()), [arguments[1]])
            builder.store(converted(builder, arguments[2], signature.args[2], kind), target).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, widest(value)), code

    @intrinsic
    def splat(typing_context, array, value):
        def code(context, builder, signature, arguments):
            return converted(builder, arguments[1], types.float64, signature.return_type)

        return _item(array)(array, types.float64), code

    @intrinsic
    def zeros(typing_context):
        def code(context, builder, signature, arguments):
            return ir.Constant(machine_type(lanes), [0.0] * LANES)

        return lanes(), code

    @intrinsic
    def square_root(typing_context, value):
        def code(context, builder, signature, arguments):
            kind = arguments[0].type
            name = f"llvm.sqrt.{'f64' if kind == ir.DoubleType() else f'v{kind.count}f64'}"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name)
            return builder.call(function, arguments)

        return widest(value)(widest(value)), code

    @intrinsic
    def where_positive(typing_context, condition, yes, no):
        kind = widest(condition, yes, no)

        def code(context, builder, signature, arguments):
            test, one, other = (
                converted(builder, value, source, kind) for value, source in zip(arguments, signature.args, strict=True)
            )
            zero = ir.Constant(test.type, [0.0] * kind.width if isinstance(kind, Vector) else 0.0)
            return builder.select(builder.fcmp_ordered(">", test, zero), one, other)

        return kind(widest(condition), widest(yes), widest(no)), code

    @intrinsic
    def largest(typing_context, value):
        def code(context, builder, signature, arguments):
            if signature.args[0] == types.float64:
                return arguments[0]
            result = builder.extract_element(arguments[0], ir.Constant(_INDEX, 0))
            for lane in range(1, LANES):
                other = builder.extract_element(arguments[0], ir.Constant(_INDEX, lane))
                greater = builder.fcmp_unordered(">", other, result)  # unordered: nan wins, so it cannot hide
                result = builder.select(greater, other, result)
            return result

        return types.float64(widest(value)), code

    @intrinsic
    def width(typing_context, value):
        kind = _item(value) if isinstance(value, types.Array) else widest(value)

        def code(context, builder, signature, arguments):
            return context.get_constant(types.intp, kind.width if isinstance(kind, Vector) else 1)

        return types.intp(value), code

    @intrinsic
    def lane(typing_context, value, index):
        def code(context, builder, signature, arguments):
            return arguments[0] if signature.args[0] == types.float64 else builder.extract_element(*arguments)

        return types.float64(widest(value), types.intp), code

    @intrinsic
    def with_lane(typing_context, value, index, number):
        def code(context, builder, signature, arguments):
            vector, position, scalar = arguments
            return scalar if signature.args[0] == types.float64 else builder.insert_element(vector, scalar, position)

        return widest(value)(widest(value), types.intp, types.float64), code

    @intrinsic
    def load_row(typing_context, work, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = row_pointer(context, builder, signature.args[1], *arguments[1:])
            return read(builder, pointer, ir.Constant(_INDEX, 0), signature.return_type)

        return _item(work)(work, array, types.intp, types.intp), code

    @intrinsic
    def load_complex_row(typing_context, array, row, column):
        def code(context, builder, signature, arguments):
            pointer = row_pointer(context, builder, signature.args[0], *arguments)
            mixed = read(builder, pointer, ir.Constant(_INDEX, 0), Vector(2 * LANES))
            parts = [shuffled(builder, mixed, range(part, 2 * LANES, 2)) for part in (0, 1)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(lanes, 2)(array, types.intp, types.intp), code

    @intrinsic
    def store_row(typing_context, array, row, column, value):
        def code(context, builder, signature, arguments):
            pointer = row_pointer(context, builder, signature.args[0], *arguments[:3])
            builder.store(arguments[3], builder.bitcast(pointer, arguments[3].type.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, widest(value)), code

    @intrinsic
    def store_complex_row(typing_context, array, row, column, real, imaginary):
        kind = widest(real, imaginary)

        def code(context, builder, signature, arguments):
            pointer = row_pointer(context, builder, signature.args[0], *arguments[:3])
            if kind == types.float64:
                for part in (0, 1):
                    builder.store(arguments[3 + part], cgutils.gep_inbounds(builder, pointer, 0, part))
                return context.get_dummy_value()
            pairs = [k + part * LANES for k in range(LANES) for part in (0, 1)]
            index = ir.Constant(ir.VectorType(_INDEX, 2 * LANES), pairs)
            mixed = builder.shuffle_vector(arguments[3], arguments[4], index)
            builder.store(mixed, builder.bitcast(pointer, mixed.type.as_pointer())).align = 8
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, kind, kind), code


@inlined
def lanes_left(w: WorkArray, scenarios: int) -> int:
    """Return how many lanes of a block are in use."""
    return width(w) if scenarios > width(w) else scenarios


@inlined
def take(w: WorkArray, array: FloatArray, row: int, first: int, count: int) -> float:
    """Return `count` scenarios of a row as an item of w; lanes beyond repeat the first."""
    if count == width(w):
        return load_row(w, array, row, first)
    value = splat(w, array[row, first])
    for k in range(1, count):
        value = with_lane(value, k, array[row, first + k])
    return value


@inlined
def take_complex(array: ComplexArray, row: int, first: int, count: int) -> tuple[float, float]:
    """Return `count` scenarios of a complex row as lanes of real and imaginary parts; lanes beyond are 0."""
    if count == LANES:
        return load_complex_row(array, row, first)
    real, imaginary = zeros(), zeros()
    for k in range(count):
        real = with_lane(real, k, array[row, first + k].real)
        imaginary = with_lane(imaginary, k, array[row, first + k].imag)
    return real, imaginary


@inlined
def put(array: FloatArray, row: int, first: int, count: int, value: float) -> None:
    """Write the first `count` lanes into a row."""
    if count == width(value):
        store_row(array, row, first, value)
    else:
        for k in range(count):
            array[row, first + k] = lane(value, k)


@inlined
def put_complex(array: ComplexArray, row: int, first: int, count: int, real: float, imaginary: float) -> None:
    """Write the first `count` lanes into a complex row."""
    if count == width(real):
        store_complex_row(array, row, first, real, imaginary)
    else:
        for k in range(count):
            array[row, first + k] = complex(lane(real, k), lane(imaginary, k))
